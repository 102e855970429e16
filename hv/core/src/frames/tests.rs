//! The frame table against a model, and its refusals.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::testing::{TestMachine, frame_table};

impl Entry {
    fn state(self) -> State {
        use State::*;
        let others = [Free, Private, Shared, Table, Hypervisor, Leaving, Limbo];
        others.into_iter().find(|state| self.is(*state)).unwrap_or(Reserved)
    }
}

impl FrameTable {
    fn get(&self, mfn: Mfn) -> Option<Entry> {
        let entry = self.entries.get(usize::try_from(mfn.0).ok()?)?;
        Some(Entry(entry.load(Ordering::Relaxed)))
    }

    /// The state of a frame; [`State::Reserved`] outside the table.
    pub fn state(&self, mfn: Mfn) -> State {
        self.get(mfn).map_or(State::Reserved, |entry| entry.state())
    }

    /// The pins on a frame.
    pub fn pins(&self, mfn: Mfn) -> u32 {
        self.get(mfn).map_or(0, |entry| entry.pins())
    }
}

const OWNER: Slot = Slot(5);

fn flushed(mfn: Mfn) -> Flushed {
    Flushed::for_test(mfn)
}

fn table() -> (FrameTable, TestMachine) {
    (frame_table(16, 4..16), TestMachine::new(16))
}

#[test]
fn m06_frames_are_zero_when_handed_out() {
    let (frames, machine) = table();
    let mfn = frames.allocate(Purpose::Private(OWNER), &machine).unwrap();
    machine.write(mfn.at(100), b"secret");
    assert_eq!(frames.release(flushed(mfn), OWNER), Ok(()));
    let again = frames.allocate(Purpose::Private(Slot(6)), &machine).unwrap();
    assert_eq!(again, mfn, "the last freed frame comes first");
    let mut bytes = [1; 4096];
    machine.read(again.base(), &mut bytes);
    assert!(bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn g08_a_pinned_frame_outlives_its_owner_until_the_last_unpin() {
    let (frames, machine) = table();
    let mfn = frames.allocate(Purpose::Private(OWNER), &machine).unwrap();
    frames.pin(mfn, OWNER).unwrap();
    frames.pin(mfn, OWNER).unwrap();
    assert_eq!(frames.release(flushed(mfn), OWNER), Ok(()));
    assert_eq!(frames.state(mfn), State::Leaving);
    assert_eq!(frames.pin(mfn, OWNER), Err(FrameError::NotOwned), "nobody can start using a leaving frame");
    assert_eq!(frames.unpin(mfn), Ok(()));
    assert_eq!(frames.state(mfn), State::Leaving);
    assert_eq!(frames.unpin(mfn), Ok(()));
    assert_eq!(frames.state(mfn), State::Free);
    assert_eq!(frames.unpin(mfn), Err(FrameError::NotPinned));
}

#[test]
fn g20_illegal_changes_are_refused() {
    let (frames, machine) = table();
    let mfn = frames.allocate(Purpose::Private(OWNER), &machine).unwrap();
    assert_eq!(frames.pin(mfn, Slot(6)), Err(FrameError::NotOwned));
    assert_eq!(frames.release(flushed(mfn), Slot(6)), Err(FrameError::NotOwned));
    assert_eq!(frames.free_unmapped(mfn, Purpose::Table(OWNER)), Err(FrameError::NotOwned));
    assert_eq!(frames.release(flushed(mfn), OWNER), Ok(()));
    assert_eq!(frames.release(flushed(mfn), OWNER), Err(FrameError::NotOwned), "freed twice");
    assert_eq!(frames.pin(Mfn(0), OWNER), Err(FrameError::NotOwned), "reserved");
    assert_eq!(frames.pin(Mfn(1 << 40), OWNER), Err(FrameError::NotOwned), "beyond the table");
    assert_eq!(frames.free(), 12);
}

#[test]
fn pins_end_at_65535() {
    let (frames, machine) = table();
    let mfn = frames.allocate(Purpose::Private(OWNER), &machine).unwrap();
    for _ in 0..0xffff {
        frames.pin(mfn, OWNER).unwrap();
    }
    assert_eq!(frames.pin(mfn, OWNER), Err(FrameError::TooManyPins));
    assert_eq!(frames.pins(mfn), 0xffff);
}

#[test]
fn overlapping_ranges_of_a_memory_map_count_once() {
    let frames = frame_table(16, 0..0);
    frames.add_hypervisor(Mfn(0)..Mfn(4));
    frames.add_free(Mfn(2)..Mfn(8));
    frames.add_free(Mfn(6)..Mfn(40));
    assert_eq!((frames.free(), frames.hypervisor(), frames.total()), (12, 4, 16));
}

proptest! {
    #[test]
    fn no_frame_is_lost_or_freed_twice(steps in prop::collection::vec((0u8..4, 0usize..12), 0..300)) {
        let (frames, machine) = table();
        // By frame: pins, and whether its owner still has it.
        let mut model: Vec<(Mfn, u32, bool)> = Vec::new();
        for (action, choice) in steps {
            let chosen = choice % model.len().max(1);
            match action {
                0 => {
                    let allocated = frames.allocate(Purpose::Private(OWNER), &machine);
                    prop_assert_eq!(allocated.is_some(), model.len() < 12);
                    if let Some(mfn) = allocated {
                        prop_assert!(model.iter().all(|(other, ..)| *other != mfn), "handed out twice");
                        model.push((mfn, 0, true));
                    }
                }
                1 => if let Some((mfn, pins, owned)) = model.get_mut(chosen) {
                    prop_assert_eq!(frames.pin(*mfn, OWNER).is_ok(), *owned);
                    *pins += u32::from(*owned);
                },
                2 => if let Some((mfn, pins, _)) = model.get_mut(chosen) {
                    prop_assert_eq!(frames.unpin(*mfn).is_ok(), *pins > 0);
                    *pins = pins.saturating_sub(1);
                },
                _ => if let Some((mfn, _, owned)) = model.get_mut(chosen) {
                    prop_assert_eq!(frames.release(flushed(*mfn), OWNER).is_ok(), *owned);
                    *owned = false;
                },
            }
            model.retain(|(_, pins, owned)| *owned || *pins > 0);
            prop_assert_eq!(frames.free(), 12 - model.len() as u64);
            for (mfn, pins, _) in &model {
                prop_assert_eq!(frames.pins(*mfn), *pins);
            }
        }
    }
}
