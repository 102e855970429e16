//! Which image a domain runs, and whether one that has replaced another is good for anything.

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use policy::restart::REPLACEMENTS_SETTING;
use policy::table::{Domain, setting};
use runtime::time::Instant;

/// How long a new image may take until everybody whom the old one served is served again.
pub const TRIAL: Duration = Duration::from_secs(10);

/// Where a replacement stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// There is none.
    #[default]
    Settled,
    /// The domain with the old image ends.
    Pending,
    /// The new one runs, and has to prove itself by then.
    OnTrial(Instant),
}

/// The image of a domain.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// What runs in the place of the policy's.
    other: Option<String>,
    /// What to go back to.
    before: Option<String>,
    stage: Stage,
}

impl Program {
    /// The name of the image that the domain runs, or is going to.
    pub fn image<'a>(&'a self, domain: &'a Domain) -> &'a str {
        self.other.as_deref().unwrap_or(&domain.image)
    }

    /// Whether the domain may run this image, by the policy.
    ///
    /// # Errors
    /// In words.
    pub fn may_be(domain: &Domain, image: &str) -> Result<(), String> {
        let others = setting(&domain.config, REPLACEMENTS_SETTING).unwrap_or_default();
        if image == domain.image || others.split(' ').any(|other| other == image) {
            return Ok(());
        }
        let name = &domain.name;
        Err(match others {
            "" => format!(
                "the policy knows no image for `{name}` but `{}`; others are listed under `replacements` of \
                 [domain.{name}]",
                domain.image
            ),
            others => format!("the policy lets `{name}` run `{}`, and of others: {others}", domain.image),
        })
    }

    /// The next domain of this label runs `image`.
    pub fn replace(&mut self, image: &str) {
        if self.stage == Stage::Settled {
            self.before = self.other.take();
        }
        (self.other, self.stage) = (Some(image.to_string()), Stage::Pending);
    }

    /// The domain has been started.
    pub fn started(&mut self, now: Instant) {
        if self.stage == Stage::Pending {
            self.stage = Stage::OnTrial(now + TRIAL);
        }
    }

    /// The domain has ended. `true`: with an image on trial, and the next one runs the image before that again.
    pub fn ended(&mut self) -> bool {
        matches!(self.stage, Stage::OnTrial(_)) && self.go_back()
    }

    /// The domain could not be started. `true`: with a new image, and the next one runs the image before that again.
    pub fn not_started(&mut self) -> bool {
        self.stage == Stage::Pending && self.go_back()
    }

    fn go_back(&mut self) -> bool {
        (self.other, self.stage) = (self.before.take(), Stage::Settled);
        true
    }

    /// Until when it is on trial.
    pub fn on_trial(&self) -> Option<Instant> {
        match self.stage {
            Stage::OnTrial(until) => Some(until),
            _ => None,
        }
    }

    /// The new image has proved itself.
    pub fn proven(&mut self) {
        (self.before, self.stage) = (None, Stage::Settled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Domain {
        Domain {
            name: "block".into(),
            image: "block".into(),
            config: [(REPLACEMENTS_SETTING.to_string(), "next other".to_string())].into(),
            ..Domain::default()
        }
    }

    #[test]
    fn only_what_the_policy_names_may_run() {
        let block = block();
        for image in ["block", "next", "other"] {
            assert_eq!(Program::may_be(&block, image), Ok(()));
        }
        for image in ["", "next other", "web", "nex"] {
            let why = Program::may_be(&block, image).unwrap_err();
            assert!(why.contains("`block`") && why.contains("next other"), "{why}");
        }
        assert!(Program::may_be(&Domain::default(), "web").unwrap_err().contains("`replacements`"));
    }

    #[test]
    fn an_image_that_fails_gives_way_to_the_one_before() {
        let block = block();
        let mut program = Program::default();
        program.started(Instant(1));
        assert!(!program.ended() && program.image(&block) == "block");
        program.replace("next");
        assert_eq!(program.image(&block), "next");
        assert!(!program.ended(), "it is the old one that ends");
        program.started(Instant(5));
        assert_eq!(program.on_trial(), Some(Instant(5) + TRIAL));
        program.proven();
        assert!(!program.ended() && program.image(&block) == "next");

        program.replace("other");
        assert!(!program.ended());
        program.started(Instant(9));
        assert!(program.ended() && program.image(&block) == "next");
        program.replace("other");
        assert!(program.not_started() && program.image(&block) == "next");
        program.replace("block");
        program.started(Instant(20));
        program.proven();
        assert!(!program.ended() && !program.not_started() && program.image(&block) == "block");
    }

    #[test]
    fn who_changes_their_mind_in_between_goes_back_to_what_was_proven() {
        let block = block();
        let mut program = Program::default();
        program.replace("next");
        program.replace("other");
        assert!(program.not_started() && program.image(&block) == "block");
        program.replace("next");
        program.started(Instant(1));
        program.replace("other");
        assert!(program.on_trial().is_none());
        program.started(Instant(2));
        assert!(program.ended() && program.image(&block) == "block");
    }
}
