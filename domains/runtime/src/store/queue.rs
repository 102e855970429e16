//! Watch events that wait. Pure.
//!
//! An event says "look there". The same one twice says no more than once, and when very many wait, "look everywhere
//! below the watch" says it all: so the queue is bounded, whatever a hostile domain writes into a watched directory.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::wire::WatchEvent;

/// Events that may wait. Beyond, the events of a watch become one, on the watched node itself.
const EVENTS_MAX: usize = 512;

/// The events that wait, and the watches that they come from.
#[derive(Debug, Default)]
pub struct EventQueue {
    events: VecDeque<WatchEvent>,
    watches: Vec<WatchEvent>,
}

impl EventQueue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<WatchEvent> {
        self.events.pop_front()
    }

    /// Adds an event.
    pub fn push(&mut self, event: WatchEvent) {
        if self.events.contains(&event) {
            return;
        }
        if self.events.len() < EVENTS_MAX {
            return self.events.push_back(event);
        }
        // An event of a watch that was just removed: nobody waits for it.
        let Some(watch) = self.watches.iter().find(|watch| watch.token == event.token) else {
            return;
        };
        self.events.retain(|queued| queued.token != event.token);
        self.events.push_back(watch.clone());
    }

    /// Puts events back to the front, in their order.
    pub fn put_back(&mut self, events: Vec<WatchEvent>) {
        events.into_iter().rev().for_each(|event| self.events.push_front(event));
    }

    /// A watch was set.
    pub fn watch_added(&mut self, watch: WatchEvent) {
        self.watches.push(watch);
    }

    /// A watch was removed: its events go, unless another watch has the same token.
    pub fn watch_removed(&mut self, gone: &WatchEvent) {
        self.watches.retain(|watch| watch != gone);
        if self.watches.iter().all(|watch| watch.token != gone.token) {
            self.events.retain(|event| event.token != gone.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    fn event(path: &str, token: &str) -> WatchEvent {
        WatchEvent { path: String::from(path), token: String::from(token) }
    }

    fn all(queue: &mut EventQueue) -> Vec<WatchEvent> {
        core::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn the_same_event_waits_once() {
        let mut queue = EventQueue::default();
        for path in ["a", "b", "a"] {
            queue.push(event(path, "t"));
        }
        queue.push(event("a", "u"));
        assert_eq!(all(&mut queue), [event("a", "t"), event("b", "t"), event("a", "u")]);
    }

    #[test]
    fn a_flood_becomes_one_event_and_spares_other_watches() {
        let mut queue = EventQueue::default();
        queue.watch_added(event("flooded", "f"));
        queue.watch_added(event("quiet", "q"));
        queue.push(event("quiet/x", "q"));
        for i in 0..100_000 {
            queue.push(event(&format!("flooded/{i}"), "f"));
            assert!(queue.events.len() <= EVENTS_MAX);
        }
        let seen = all(&mut queue);
        assert!(seen.contains(&event("quiet/x", "q")) && seen.contains(&event("flooded", "f")));
    }

    #[test]
    fn events_of_a_removed_watch_go() {
        let mut queue = EventQueue::default();
        queue.watch_added(event("a", "t"));
        queue.watch_added(event("b", "t"));
        queue.push(event("a", "t"));
        queue.watch_removed(&event("a", "t"));
        assert!(!queue.is_empty(), "another watch has that token");
        queue.watch_removed(&event("b", "t"));
        assert!(queue.is_empty());
    }

    #[test]
    fn events_put_back_come_first_and_in_order() {
        let mut queue = EventQueue::default();
        queue.push(event("c", "t"));
        queue.put_back(alloc::vec![event("a", "t"), event("b", "t")]);
        assert_eq!(all(&mut queue), [event("a", "t"), event("b", "t"), event("c", "t")]);
    }
}
