//! `compile IN.toml OUT`: the compiled table of a policy.
fn main() {
    let mut args = std::env::args().skip(1);
    let (input, output) = (args.next().expect("IN"), args.next().expect("OUT"));
    let text = std::fs::read_to_string(&input).expect("readable");
    match policy::load(&input, &text) {
        Ok(policy) => std::fs::write(output, policy.compile()).expect("writable"),
        Err(errors) => eprintln!("{errors}"),
    }
}
