//! The domain that is measured with: echoes, gives way, spins.

use crate::link::{self, Mode, TIME};
use crate::samples::Report;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Release;
use runtime::event;
use runtime::hypercall::{event_channel, sched};
use runtime::time::ticks;

/// Serves for ever.
pub fn serve() -> Result<Vec<Report>, String> {
    let offer = link::offer()?;
    let (page, port) = (offer.pages.page(0), offer.channel.port());
    // Nothing else is to wake us from here on.
    event::mask_all_but(&[port]);
    loop {
        match Mode::read(page) {
            Mode::Echo => {
                while !event::take(port) {
                    sched::block();
                }
                // The measuring domain notices when it hears nothing.
                let _ = event_channel::send(port);
            }
            Mode::EchoAtOnce => {
                while !event::take(port) {
                    sched::block();
                }
                while Mode::read(page) == Mode::EchoAtOnce {
                    let _ = sched::send_and_block(port);
                    event::take(port);
                }
                let _ = event_channel::send(port);
            }
            Mode::GiveWay => sched::give_way(),
            Mode::Spin => {
                let time = page.u64_at(TIME);
                while Mode::read(page) == Mode::Spin {
                    time.store(ticks(), Release);
                }
            }
        }
    }
}
