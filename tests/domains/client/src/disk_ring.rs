//! A blkif ring in wrong hands.

use crate::disk::PATIENCE;
use crate::domain::Outcome;
use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::Ordering;
use runtime::event::Channel;
use runtime::grant::GrantedPages;
use runtime::time::now;
use runtime::xenbus::{Frontend, State};
use runtime::{Access, Errno, store};
use xen_rings::blkif::{BlkFront, Direction, Outcome as Answer, Segment};

/// Where the ring's head has the front end's producer index.
const REQ_PROD: usize = 0;

fn words(error: Errno) -> String {
    format!("{error:?}")
}

/// A connection with a ring of our own.
struct Connection {
    device: Frontend,
    ring: GrantedPages,
    channel: Channel,
}

fn connect(mut device: Frontend) -> Result<Connection, String> {
    let deadline = Some(now() + PATIENCE);
    device.wait_for_backend(deadline).map_err(words)?;
    let ring = GrantedPages::allocate(1, device.backend(), Access::ReadWrite).map_err(|error| error.to_string())?;
    // Making a front end writes the ring's head; the front end itself is not needed.
    let _ = BlkFront::<_, 32>::new(ring.memory()).map_err(|error| error.to_string())?;
    let channel = Channel::listen(device.backend()).map_err(words)?;
    let details: [(&str, &dyn core::fmt::Display); 2] =
        [("ring-ref", &ring.reference(0)), ("event-channel", &channel.port())];
    device.publish(State::Initialised, &details).map_err(words)?;
    device.wait_connected(deadline).map_err(words)?;
    Ok(Connection { device, ring, channel })
}

fn first() -> Result<Frontend, String> {
    let index = loop {
        if let Some(&index) = Frontend::list("vbd").first() {
            break index;
        }
        drop(store::wait_event(Some(now() + core::time::Duration::from_millis(100))));
    };
    Frontend::open("vbd", index).map_err(words)
}

/// Closes when the back end does, and waits until it has closed.
fn closed(connection: Connection) -> Result<Frontend, String> {
    let Connection { mut device, ring, channel } = connection;
    wait_for(&device, &[State::Closing, State::Closed])?;
    device.close().map_err(words)?;
    wait_for(&device, &[State::Closed])?;
    drop(channel);
    // Closed means that nothing of ours is mapped any more.
    ring.revoke().map_err(|_| String::from("the ring is still mapped by a closed back end")).map(drop)?;
    Ok(device)
}

/// Waits until the back end is in one of these states.
fn wait_for(device: &Frontend, states: &[State]) -> Outcome {
    let deadline = now() + PATIENCE;
    while !states.contains(&device.backend_state()) {
        if now() > deadline {
            return Err(format!("the back end is {:?}, not one of {states:?}", device.backend_state()));
        }
        drop(store::wait_event(Some(now() + core::time::Duration::from_millis(100))));
    }
    Ok(())
}

/// One request through an ordinary front end over the connection's ring.
fn serves(connection: &mut Connection) -> Outcome {
    let page = GrantedPages::allocate(1, connection.device.backend(), Access::ReadWrite).map_err(|e| e.to_string())?;
    let mut front = BlkFront::<_, 32>::new(connection.ring.memory()).map_err(|error| error.to_string())?;
    front.transfer(Direction::Read, 0, &[Segment::page(page.reference(0).0)]).map_err(|error| error.to_string())?;
    if front.publish() {
        connection.channel.notify();
    }
    let deadline = Some(now() + PATIENCE);
    loop {
        match front.next_completion().map_err(|error| error.to_string())? {
            Some(done) if done.outcome == Answer::Done => return Ok(()),
            Some(done) => return Err(format!("answered {:?}", done.outcome)),
            None if front.final_check().map_err(|error| error.to_string())? => {}
            None if runtime::event::poll(&[connection.channel.port()], deadline) => {}
            None => return Err(String::from("no answer")),
        }
    }
}

/// A producer index that cannot be: the back end closes, says why, and serves again when we start over.
pub fn impossible_index() -> Outcome {
    let connection = connect(first()?)?;
    connection.ring.memory().u32_at(REQ_PROD).store(0x4000_0000, Ordering::Release);
    connection.channel.notify();
    let mut device = closed(connection)?;
    device.reopen().map_err(words)?;
    serves(&mut connect(device)?)
}

/// Connects and leaves many times, with a request each time.
pub fn connect_again_and_again() -> Outcome {
    let mut device = first()?;
    for _ in 0..20 {
        let mut connection = connect(device)?;
        serves(&mut connection)?;
        connection.device.publish(State::Closing, &[]).map_err(words)?;
        device = closed(connection)?;
        device.reopen().map_err(words)?;
    }
    serves(&mut connect(device)?)
}

/// Events without anything to do, as many as it takes.
pub fn storm() -> Outcome {
    let mut connection = connect(first()?)?;
    for _ in 0..200_000 {
        connection.channel.notify();
    }
    serves(&mut connection)
}
