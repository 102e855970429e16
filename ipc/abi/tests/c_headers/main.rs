//! `xen-abi` against Xen's public headers, as Debian's `libxen-dev` installs them: a C program made from
//! [`table::all`] is compiled and run, and says the value of every C expression in it. Sizes, offsets and constants
//! must be the same.

use std::path::Path;
use std::process::Command;

mod table;

/// A C expression and what `xen-abi` says its value is.
#[derive(Clone, Debug)]
pub struct Check {
    expression: String,
    expected: i128,
}

impl Check {
    /// `expression` must have this value.
    pub fn new(expression: &str, expected: impl TryInto<i128>) -> Self {
        let Ok(expected) = expected.try_into() else { panic!("{expression}: value out of range") };
        Self { expression: expression.to_owned(), expected }
    }
}

/// Bytes of the field that a projection reaches.
pub fn field_bytes<S, F>(_: impl Fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// `NAME = "C expression"`: constants of the same value.
macro_rules! constants {
    ($checks:ident: $($name:ident = $c:literal),* $(,)?) => {
        $checks.extend([$(Check::new($c, $name)),*]);
    };
}

/// `Name = "C structure" { field, field = "C field" }`: offsets and sizes of fields.
macro_rules! fields {
    ($checks:ident: $name:ident = $c:literal { $($field:ident $(= $c_field:literal)?),* $(,)? }) => {
        $(
            #[allow(unused_mut, unused_assignments)]
            let mut field = stringify!($field);
            $(field = $c_field;)?
            let bytes = $crate::field_bytes(|structure: &$name| &structure.$field);
            $checks.extend([
                Check::new(&format!("offsetof({}, {field})", $c), std::mem::offset_of!($name, $field)),
                Check::new(&format!("sizeof((({} *)0)->{field})", $c), bytes),
            ]);
        )*
    };
}

/// The same, with the structure's size.
macro_rules! structures {
    ($checks:ident: $($name:ident = $c:literal { $($fields:tt)* }),* $(,)?) => {
        $(
            $checks.push(Check::new(&format!("sizeof({})", $c), size_of::<$name>()));
            $crate::fields!($checks: $name = $c { $($fields)* });
        )*
    };
}

pub(crate) use {constants, fields, structures};

/// The headers that the expressions need.
const HEADERS: &[&str] = &[
    "errno.h",
    "stddef.h",
    "stdint.h",
    "stdio.h",
    "string.h",
    "xen/xen.h",
    "xen/event_channel.h",
    "xen/grant_table.h",
    "xen/memory.h",
    "xen/sched.h",
    "xen/vcpu.h",
    "xen/physdev.h",
    "xen/version.h",
    "xen/features.h",
    "xen/errno.h",
    "xen/elfnote.h",
    "xen/hvm/hvm_op.h",
    "xen/hvm/params.h",
    "xen/arch-x86/cpuid.h",
    "xen/arch-x86/hvm/start_info.h",
    "xen/io/ring.h",
    "xen/io/blkif.h",
    "xen/io/netif.h",
    "xen/io/console.h",
    "xen/io/protocols.h",
    "xen/io/xenbus.h",
    "xen/io/xs_wire.h",
];

/// The newest interface that the headers describe.
const INTERFACE_VERSION: &str = "-D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__";

const REMEDY: &str = "This test compares xen-abi with Xen's public headers. It needs a C compiler and the headers: \
                      apt-get install gcc libc6-dev libxen-dev";

/// The program: a line "sign value" for each check.
fn program(headers: &[&str], checks: &[Check]) -> String {
    let includes: String = headers.iter().map(|header| format!("#include <{header}>\n")).collect();
    let lines: String = checks
        .iter()
        .map(|Check { expression, .. }| {
            format!("    printf(\"%d %llu\\n\", ({expression}) < 0, (unsigned long long)({expression}));\n")
        })
        .collect();
    format!("{includes}\nint main(void)\n{{\n{lines}    return 0;\n}}\n")
}

/// Compiles and runs the program for `checks`; returns those whose value is another, with it.
fn mismatches(name: &str, headers: &[&str], checks: &[Check]) -> Result<Vec<(Check, i128)>, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, binary) = (directory.join(format!("{name}.c")), directory.join(name));
    std::fs::write(&source, program(headers, checks)).map_err(|error| format!("{}: {error}", source.display()))?;
    let compiler = Command::new("cc")
        .args(["-std=gnu11", "-w", INTERFACE_VERSION, "-o"])
        .args([&binary, &source])
        .output()
        .map_err(|error| format!("cannot run cc: {error}\n{REMEDY}"))?;
    if !compiler.status.success() {
        return Err(format!("cc failed:\n{}\n{REMEDY}", String::from_utf8_lossy(&compiler.stderr)));
    }
    let output = Command::new(&binary).output().map_err(|error| format!("{}: {error}", binary.display()))?;
    let values = String::from_utf8_lossy(&output.stdout).lines().map(parse_line).collect::<Option<Vec<_>>>();
    match values {
        Some(values) if values.len() == checks.len() => {
            let pairs = checks.iter().cloned().zip(values);
            Ok(pairs.filter(|(check, value)| check.expected != *value).collect())
        }
        _ => Err(format!("the C program said nonsense: {output:?}")),
    }
}

fn parse_line(line: &str) -> Option<i128> {
    let (negative, value) = line.split_once(' ')?;
    let value: u64 = value.parse().ok()?;
    Some(if negative == "1" { i128::from(value.cast_signed()) } else { i128::from(value) })
}

#[test]
fn constants_sizes_and_offsets_are_those_of_the_c_headers() {
    let checks = table::all();
    let wrong = mismatches("abi", HEADERS, &checks).unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<_> = wrong
        .iter()
        .map(|(check, value)| format!("{}: {value} in C, {} in xen-abi", check.expression, check.expected))
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), checks.len(), lines.join("\n"));
}

#[test]
fn a_wrong_value_is_noticed() {
    let checks = [
        Check::new("GNTST_bad_page", xen_abi::grant_table::GNTST_BAD_PAGE),
        Check::new("GNTST_bad_page", -8),
        Check::new("sizeof(struct gnttab_copy)", 48),
        Check::new("offsetof(struct gnttab_copy, dest)", 24),
        Check::new("HVM_PARAM_CALLBACK_IRQ_TYPE_MASK", xen_abi::hvm::HVM_PARAM_CALLBACK_IRQ_TYPE_MASK),
        Check::new("HVM_PARAM_CALLBACK_IRQ_TYPE_MASK", 0),
    ];
    let wrong = mismatches("wrong", HEADERS, &checks).unwrap_or_else(|error| panic!("{error}"));
    let values: Vec<_> = wrong.iter().map(|(check, value)| (check.expected, *value)).collect();
    assert_eq!(values, [(-8, -9), (48, 40), (24, 16), (0, 0xff00_0000_0000_0000)]);
}

#[test]
fn missing_headers_are_an_error_with_a_remedy() {
    let error = mismatches("missing", &["xen/not-there.h"], &[]).expect_err("must fail");
    assert!(error.contains("xen/not-there.h") && error.contains("apt-get install") && error.contains("libxen-dev"));
}

/// The source files with what is Xen's; the other modules are Bulkhead's own.
const SOURCES: &[&str] = &[
    include_str!("../../src/elfnote.rs"),
    include_str!("../../src/event_channel.rs"),
    include_str!("../../src/grant_table.rs"),
    include_str!("../../src/hvm.rs"),
    include_str!("../../src/io/blkif.rs"),
    include_str!("../../src/io/console.rs"),
    include_str!("../../src/io/netif.rs"),
    include_str!("../../src/io/ring.rs"),
    include_str!("../../src/io/xs_wire.rs"),
    include_str!("../../src/memory.rs"),
    include_str!("../../src/physdev.rs"),
    include_str!("../../src/sched.rs"),
    include_str!("../../src/start_info.rs"),
    include_str!("../../src/vcpu.rs"),
    include_str!("../../src/version.rs"),
    include_str!("../../src/xen.rs"),
];

/// Names of public constants, types and fields (as `Type.field`) in a source file. Padding is left out.
fn public_names(source: &str) -> Vec<String> {
    let mut structure = "";
    let mut names = Vec::new();
    for line in source.lines() {
        let name_after = |text| line.strip_prefix(text).and_then(|rest: &str| rest.split([':', ' ', ';']).next());
        if let Some(name) = name_after("pub const ").filter(|&name| name != "fn") {
            names.push(name.to_owned());
        } else if let Some(name) = name_after("pub struct ") {
            structure = name;
            names.push(name.to_owned());
        } else if let Some(name) = name_after("    pub ").filter(|name| !name.starts_with("pad"))
            && !matches!(name, "const" | "fn")
        {
            names.push(format!("{structure}.{name}"));
        }
    }
    names
}

#[test]
fn nothing_of_xen_abi_is_left_out_of_the_table() {
    let table = include_str!("table.rs");
    let words: Vec<_> = table.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let entry = |name: &str| {
        let start = table.find(&format!(" {name} = \"struct "))?;
        table[start..].split_once('{')?.1.split_once('}').map(|(fields, _)| fields)
    };
    let missing: Vec<_> = SOURCES
        .iter()
        .flat_map(|source| public_names(source))
        .filter(|name| match name.split_once('.') {
            _ if table::NOT_IN_HEADERS.contains(&name.split('.').next().unwrap_or(name)) => false,
            Some(("EvtchnStatusDetail", _)) => false,
            Some((structure, field)) => {
                !entry(structure).is_some_and(|fields| fields.split([',', ' ', '\n']).any(|word| word == field))
            }
            None => !words.contains(&name.as_str()),
        })
        .collect();
    assert!(missing.is_empty(), "not compared with the C headers: {missing:?}");
}
