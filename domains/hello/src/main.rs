//! The smallest domain that does something: says hello, reads its arguments, ticks, leaves a note in xenstore.
//!
//! Arguments: `greeting=TEXT` (default `hello`), `ticks=N` (default 3), `pause=MILLISECONDS` (default 1000).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
mod domain {
    use core::time::Duration;

    use runtime::store::Store;
    use runtime::{info, println, time};

    runtime::entry!(main);

    fn main() {
        let greeting = info::argument("greeting").unwrap_or("hello");
        println!("{greeting}, I am {}, domain {}", info::name(), info::own_domid());

        let pause = Duration::from_millis(number("pause").unwrap_or(1000));
        for tick in 1..=number("ticks").unwrap_or(3) {
            time::sleep(pause);
            println!("tick {tick} at {} ms", time::now().millis());
        }

        match Store::new().write("data/greeting", greeting) {
            Ok(()) => println!("wrote data/greeting"),
            Err(error) => println!("could not write data/greeting: {error}"),
        }
    }

    fn number(key: &str) -> Option<u64> {
        info::argument(key)?.parse().ok()
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
