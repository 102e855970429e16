//! The verdict protocol: how a test domain tells the harness how it went.
//!
//! One line a verdict, `VERDICT pass|fail <name>[: <detail>]`, on the console. `tests/` parses them.

use core::fmt::Display;

/// Reports that `name` holds.
pub fn pass(name: &str) {
    crate::println!("VERDICT pass {name}");
}

/// Reports that `name` does not hold, and why.
pub fn fail(name: &str, detail: impl Display) {
    crate::println!("VERDICT fail {name}: {detail}");
}

/// Reports a result.
pub fn report<T, E: Display>(name: &str, result: Result<T, E>) {
    match result {
        Ok(_) => pass(name),
        Err(error) => fail(name, error),
    }
}

/// Reports whether two values are equal.
pub fn equal<T: PartialEq + core::fmt::Debug>(name: &str, actual: T, expected: T) {
    if actual == expected {
        pass(name);
    } else {
        fail(name, format_args!("{actual:?} instead of {expected:?}"));
    }
}

/// Reports whether a condition holds.
#[macro_export]
macro_rules! verdict {
    ($name:expr, $condition:expr) => {
        $crate::verdict!($name, $condition, ::core::stringify!($condition))
    };
    ($name:expr, $condition:expr, $($detail:tt)*) => {
        if $condition {
            $crate::verdict::pass($name)
        } else {
            $crate::verdict::fail($name, ::core::format_args!($($detail)*))
        }
    };
}
