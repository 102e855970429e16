//! Sub-operations of a hypercall as enums: a number that is not listed is `-ENOSYS`, and nothing else happens.

/// Makes an enum of the sub-operations that exist, each with its number.
macro_rules! operations {
    ($(#[$doc:meta])* $name:ident { $($(#[$op_doc:meta])* $op:ident = $number:path,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$op_doc])* $op,)*
        }

        impl TryFrom<u64> for $name {
            type Error = $crate::error::Errno;

            fn try_from(command: u64) -> Result<Self, Self::Error> {
                match command {
                    $($number => Ok(Self::$op),)*
                    _ => Err($crate::error::Errno::ENOSYS),
                }
            }
        }
    };
}

pub(crate) use operations;
