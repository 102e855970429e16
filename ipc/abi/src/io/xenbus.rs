//! `io/xenbus.h`: the states that the two ends of a split driver write to their `state` nodes, as decimal text.

macro_rules! states {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        /// `enum xenbus_state`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum XenbusState {
            $(#[doc = $text] $name = $value,)*
            /// No state node, or nonsense in it.
            #[default]
            Unknown = 0,
        }

        impl XenbusState {
            /// All states but [`XenbusState::Unknown`].
            pub const ALL: &'static [XenbusState] = &[$(XenbusState::$name,)*];

            /// The state of a number; [`XenbusState::Unknown`] for numbers that have none.
            #[must_use]
            pub const fn from_number(number: u8) -> Self {
                match number {
                    $($value => XenbusState::$name,)*
                    _ => XenbusState::Unknown,
                }
            }
        }
    };
}

states! {
    Initialising = 1, "The end exists.";
    InitWait = 2, "The back end has written its features and waits for the front end's details.";
    Initialised = 3, "The front end has written its rings and event channel and waits for the back end.";
    Connected = 4, "In operation.";
    Closing = 5, "Wants to end.";
    Closed = 6, "Has ended.";
    Reconfiguring = 7, "Is changing its devices.";
    Reconfigured = 8, "Has changed its devices.";
}

impl XenbusState {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The text of a state node: one digit.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            XenbusState::Unknown => "0",
            XenbusState::Initialising => "1",
            XenbusState::InitWait => "2",
            XenbusState::Initialised => "3",
            XenbusState::Connected => "4",
            XenbusState::Closing => "5",
            XenbusState::Closed => "6",
            XenbusState::Reconfiguring => "7",
            XenbusState::Reconfigured => "8",
        }
    }

    /// Reads a state node's text. Nonsense is [`XenbusState::Unknown`].
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        match text {
            [digit @ b'0'..=b'9'] => Self::from_number(digit - b'0'),
            _ => XenbusState::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_the_way_through_their_text() {
        for &state in XenbusState::ALL {
            assert_eq!(XenbusState::parse(state.text().as_bytes()), state);
        }
    }

    #[test]
    fn nonsense_is_unknown() {
        for text in ["", "9", "0", "44", " 4", "x", "-1"] {
            assert_eq!(XenbusState::parse(text.as_bytes()), XenbusState::Unknown);
        }
    }
}
