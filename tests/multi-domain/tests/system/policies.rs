//! Policies that several tests share.

use bulkhead_test::Boot;

/// The three services that every system has.
pub const BASE: &str = r#"
[domain.policy]
role = "policy"
memory = "16M"
[domain.xenstore]
role = "xenstore"
memory = "16M"
[domain.console]
role = "console"
memory = "16M"
io-ports = ["0x3f8-0x3ff"]
irqs = [4]
"#;

/// A probe domain of that name, told to do `what`; `more` are further keys.
pub fn probe(name: &str, what: &str, more: &str) -> String {
    format!("[domain.{name}]\nimage = \"probe\"\nmemory = \"2M\"\narguments = \"do={what}\"\n{more}\n")
}

/// The base system with these domains beside it.
pub fn boot(domains: &str) -> Boot {
    Boot::policy(&format!("{BASE}{domains}")).image("probe")
}
