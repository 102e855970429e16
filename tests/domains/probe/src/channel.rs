//! Two probes with a channel: grants and events between real domains, with every error that a peer can be told.
//!
//! The front end grants three pages, one of them read-only and one already revoked, and tells their references through
//! xenstore. The back end does what it may and what it may not.

use core::sync::atomic::Ordering::{Acquire, Release};
use core::time::Duration;
use runtime::event::{self, Channel};
use runtime::grant::{GrantedPages, Mapping};
use runtime::hypercall::{event_channel, grant_table};
use runtime::store::{self};
use runtime::time::{Instant, now, sleep};
use runtime::verdict::{equal, fail, pass, report};
use runtime::xenbus::{BackendBus, BackendEvent, Frontend, State};
use runtime::{Access, DomId, Errno, GrantRef, Port, verdict};
use xen_abi::grant_table as gt;
use xen_abi::native::{GRANT_WINDOW_END, PAGE_SIZE};
use xen_abi::xen::DOMID_SELF;

const KIND: &str = "channel";
const WORD: u32 = 0xb01d_face;

fn soon() -> Option<Instant> {
    Some(Instant(now().0 + Duration::from_secs(60).as_nanos() as u64))
}

/// What a front end offers.
pub struct Offer {
    device: Frontend,
    /// With [`WORD`] at its start.
    pub writable: GrantedPages,
    read_only: GrantedPages,
    /// To the back end.
    pub channel: Channel,
}

/// Offers pages and a channel, and waits until they are taken.
pub fn offer() -> Result<Offer, Errno> {
    let mut device = Frontend::open(KIND, 0)?;
    device.wait_for_backend(soon())?;
    let peer = device.backend();
    let page = |access| GrantedPages::allocate(1, peer, access).map_err(|_| Errno::ENOMEM);
    let (writable, read_only, revoked) = (page(Access::ReadWrite)?, page(Access::ReadOnly)?, page(Access::ReadWrite)?);
    let gone = revoked.reference(0);
    drop(revoked);
    let channel = Channel::listen(peer)?;
    writable.memory().u32_at(0).store(WORD, Release);
    read_only.memory().u32_at(0).store(!WORD, Release);
    device.publish(
        State::Initialised,
        &[
            ("writable-ref", &writable.reference(0).0),
            ("read-only-ref", &read_only.reference(0).0),
            ("revoked-ref", &gone.0),
            ("event-channel", &channel.port().0),
        ],
    )?;
    device.wait_connected(soon())?;
    Ok(Offer { device, writable, read_only, channel })
}

/// `do=channel-front`.
pub fn front() {
    let offer = match offer() {
        Ok(offer) => offer,
        Err(error) => return fail("front-connects", error),
    };
    pass("front-connects");
    verdict!("front-sees-an-event", event::poll(&[offer.channel.port()], soon()));
    equal("front-sees-the-write", offer.writable.memory().u32_at(4).load(Acquire), WORD);
    equal("front-sees-the-copy", offer.writable.memory().u32_at(8).load(Acquire), !WORD);
    equal("front-page-was-not-written", offer.read_only.memory().u32_at(0).load(Acquire), !WORD);
    report("front-answers", offer.channel.send());
    // The back end unmaps, then says so; only then can the pages be taken back.
    verdict!("front-is-told-to-revoke", event::poll(&[offer.channel.port()], soon()));
    verdict!("f1-revoked-after-unmap", offer.writable.revoke().is_ok());
    drop(offer.device);
}

/// What a back end got.
pub struct Peer {
    /// Who offered it.
    pub domain: DomId,
    /// A page to write.
    pub writable: GrantRef,
    read_only: GrantRef,
    revoked: GrantRef,
    /// To the front end.
    pub channel: Channel,
    /// What holds the connection.
    pub _bus: BackendBus,
}

/// Takes what a front end offers.
pub fn accept() -> Result<Peer, Errno> {
    let mut bus = BackendBus::new(KIND)?;
    loop {
        let watched = store::wait_event(soon()).ok_or(Errno::ETIME)?;
        let mut todo = bus.on_watch(&watched);
        while let Some(next) = todo.pop() {
            match next {
                BackendEvent::Found(id) => todo.extend(bus.announce(id)),
                BackendEvent::Ready(id) => {
                    let device = bus.device(id).ok_or(Errno::ENODEV)?;
                    let reference = |key| device.frontend_value(key).map(GrantRef);
                    let (writable, read_only) = (reference("writable-ref")?, reference("read-only-ref")?);
                    let revoked = reference("revoked-ref")?;
                    let channel = Channel::connect(id.frontend, Port(device.frontend_value("event-channel")?))?;
                    bus.connected(id);
                    // Binding makes our end pending once; that is not the peer's event.
                    event::poll(&[channel.port()], soon());
                    return Ok(Peer { domain: id.frontend, writable, read_only, revoked, channel, _bus: bus });
                }
                // Links of this kind are written anew for a successor.
                BackendEvent::Adopt(_) | BackendEvent::Closing(_) | BackendEvent::Gone(_) => {}
            }
        }
    }
}

/// `do=channel-back`.
pub fn back() {
    let peer = match accept() {
        Ok(peer) => peer,
        Err(error) => return fail("back-connects", error),
    };
    pass("back-connects");
    refused_maps(&peer);
    maps(&peer);
    copies(&peer);
    report("back-notifies", peer.channel.send());
    verdict!("back-hears-the-answer", event::poll(&[peer.channel.port()], soon()));
    report("back-notifies-again", peer.channel.send());
    sleep(Duration::from_millis(200));
    let Peer { channel, domain, .. } = peer;
    let port = channel.port();
    drop(channel);
    equal("closed-port-is-closed", event_channel::send(port), Err(Errno::EINVAL));
    verdict!("back-is-alive", domain.0 != 0);
}

/// One map operation with these arguments; the status.
fn map(domain: u16, reference: u32, address: u64, flags: u32) -> (i16, u32) {
    let mut operations =
        [gt::GnttabMapGrantRef { host_addr: address, flags, gref: reference, dom: domain, ..Default::default() }];
    // SAFETY: the address is at the end of the grant window, which the runtime hands out from the start, or is refused.
    let call = unsafe { grant_table::map(&mut operations) };
    match call {
        Ok(()) => (operations[0].status, operations[0].handle),
        Err(_) => (i16::MIN, 0),
    }
}

fn unmap(handle: u32, address: u64) -> i16 {
    let mut operations = [gt::GnttabUnmapGrantRef { host_addr: address, handle, ..Default::default() }];
    // SAFETY: what is mapped there was mapped by `map`, and no reference covers it.
    let call = unsafe { grant_table::unmap(&mut operations) };
    if call.is_ok() { operations[0].status } else { i16::MIN }
}

fn refused_maps(peer: &Peer) {
    let place = GRANT_WINDOW_END - 16 * PAGE_SIZE;
    let (dom, ok, host) = (peer.domain.0, peer.writable.0, gt::GNTMAP_HOST_MAP);
    let cases: [(&str, u16, u32, u64, u32, i16); 11] = [
        ("map-of-nobody", 0x6fff, ok, place, host, gt::GNTST_BAD_DOMAIN),
        ("map-without-a-link", 0, ok, place, host, gt::GNTST_PERMISSION_DENIED),
        ("map-no-such-reference", dom, 1 << 20, place, host, gt::GNTST_BAD_GNTREF),
        ("map-revoked", dom, peer.revoked.0, place, host, gt::GNTST_GENERAL_ERROR),
        ("map-for-writing-what-is-read-only", dom, peer.read_only.0, place, host, gt::GNTST_GENERAL_ERROR),
        ("map-unaligned", dom, ok, place + 8, host, gt::GNTST_BAD_VIRT_ADDR),
        ("map-outside-the-window", dom, ok, 0x10_0000, host, gt::GNTST_BAD_VIRT_ADDR),
        ("map-over-the-hypervisor", dom, ok, 0xffff_8000_0000_0000, host, gt::GNTST_BAD_VIRT_ADDR),
        ("g7-contains-pte", dom, ok, place, host | gt::GNTMAP_CONTAINS_PTE, gt::GNTST_GENERAL_ERROR),
        ("g8-application-map", dom, ok, place, host | gt::GNTMAP_APPLICATION_MAP, gt::GNTST_GENERAL_ERROR),
        ("g8-no-host-map", dom, ok, place, 0, gt::GNTST_BAD_GNTREF),
    ];
    for (name, domain, reference, address, flags, expected) in cases {
        equal(name, map(domain, reference, address, flags).0, expected);
    }
    equal("unmap-what-is-not-held", unmap(77, place), gt::GNTST_BAD_HANDLE);
    equal("unmap-no-such-handle", unmap(u32::MAX, place), gt::GNTST_BAD_HANDLE);
}

fn maps(peer: &Peer) {
    let place = GRANT_WINDOW_END - 16 * PAGE_SIZE;
    let (status, handle) = map(peer.domain.0, peer.writable.0, place, gt::GNTMAP_HOST_MAP);
    equal("map-for-writing", status, gt::GNTST_OKAY);
    let occupied = map(peer.domain.0, peer.writable.0, place, gt::GNTMAP_HOST_MAP).0;
    equal("map-where-something-is", occupied, gt::GNTST_BAD_VIRT_ADDR);
    equal("g9-unmap-elsewhere", unmap(handle, place + PAGE_SIZE), gt::GNTST_BAD_VIRT_ADDR);
    equal("unmap", unmap(handle, place), gt::GNTST_OKAY);
    equal("g9-unmap-twice", unmap(handle, place), gt::GNTST_BAD_HANDLE);

    match Mapping::page_of(peer.domain, peer.writable, Access::ReadWrite) {
        Ok(page) => {
            equal("mapped-page-shows-the-peers-word", page.memory().u32_at(0).load(Acquire), WORD);
            page.memory().u32_at(4).store(WORD, Release);
        }
        Err(error) => fail("mapped-page-shows-the-peers-word", error),
    }
    match Mapping::page_of(peer.domain, peer.read_only, Access::ReadOnly) {
        Ok(page) => equal("read-only-page-shows-the-peers-word", page.memory().u32_at(0).load(Acquire), !WORD),
        Err(error) => fail("read-only-page-shows-the-peers-word", error),
    }
}

/// One copy; the status.
fn copy(source: (u16, u64, u16), dest: (u16, u64, u16), len: u16, flags: u16) -> i16 {
    let side = |(domid, target, offset)| gt::GnttabCopyPtr { target, domid, offset, pad: 0 };
    let mut operations = [gt::GnttabCopy { source: side(source), dest: side(dest), len, flags, ..Default::default() }];
    // SAFETY: destinations are the peer's pages, or refused.
    let call = unsafe { grant_table::copy(&mut operations) };
    if call.is_ok() { operations[0].status } else { i16::MIN }
}

fn copies(peer: &Peer) {
    let both = gt::GNTCOPY_SOURCE_GREF | gt::GNTCOPY_DEST_GREF;
    let (dom, writable, read_only) = (peer.domain.0, u64::from(peer.writable.0), u64::from(peer.read_only.0));
    let cases: [(&str, (u16, u64, u16), (u16, u64, u16), u16, u16, i16); 8] = [
        ("copy-between-grants", (dom, read_only, 0), (dom, writable, 8), 4, both, gt::GNTST_OKAY),
        ("copy-into-read-only", (dom, writable, 0), (dom, read_only, 0), 4, both, gt::GNTST_GENERAL_ERROR),
        ("copy-across-a-pages-end", (dom, writable, 4094), (dom, writable, 0), 4, both, gt::GNTST_BAD_COPY_ARG),
        ("copy-of-nobody", (0x6fff, writable, 0), (dom, writable, 0), 4, both, gt::GNTST_BAD_DOMAIN),
        ("copy-without-a-link", (0, 1, 0), (dom, writable, 0), 4, both, gt::GNTST_PERMISSION_DENIED),
        (
            "copy-of-the-peers-frame",
            (dom, 0x200, 0),
            (dom, writable, 0),
            4,
            gt::GNTCOPY_DEST_GREF,
            gt::GNTST_PERMISSION_DENIED,
        ),
        (
            "copy-to-own-code",
            (dom, writable, 0),
            (DOMID_SELF, 0x200, 0),
            4,
            gt::GNTCOPY_SOURCE_GREF,
            gt::GNTST_BAD_PAGE,
        ),
        ("copy-no-such-reference", (dom, 1 << 30, 0), (dom, writable, 0), 4, both, gt::GNTST_BAD_GNTREF),
    ];
    for (name, source, dest, len, flags, expected) in cases {
        equal(name, copy(source, dest, len, flags), expected);
    }
}

/// `do=die-while-mapped`: grants pages, waits until the peer has mapped them, and dies.
pub fn die_while_mapped() {
    match offer() {
        Ok(offer) => {
            verdict!("doomed-sees-an-event", event::poll(&[offer.channel.port()], soon()));
            runtime::crash()
        }
        Err(error) => fail("doomed-connects", error),
    }
}

/// `do=keep-mapped`: maps a peer's page, and goes on reading it after the peer's death.
pub fn keep_mapped() {
    let peer = match accept() {
        Ok(peer) => peer,
        Err(error) => return fail("keeper-connects", error),
    };
    let page = match Mapping::page_of(peer.domain, peer.writable, Access::ReadWrite) {
        Ok(page) => page,
        Err(error) => return fail("keeper-maps", error),
    };
    report("keeper-notifies", peer.channel.send());
    sleep(Duration::from_secs(2));
    equal("page-outlives-its-owner", page.memory().u32_at(0).load(Acquire), WORD);
    page.memory().u32_at(0).store(1, Release);
    drop(page);
    let again = Mapping::page_of(peer.domain, peer.writable, Access::ReadWrite);
    verdict!("dead-owners-grants-are-gone", again.is_err());
    pass("keeper-lives");
}

/// `do=storm`: a million events.
pub fn storm() {
    let offer = match offer() {
        Ok(offer) => offer,
        Err(error) => return fail("storm-connects", error),
    };
    for _ in 0..1_000_000 {
        offer.channel.notify();
    }
    pass("storm-is-over");
}

/// `do=calm`: takes them.
pub fn calm() {
    match accept() {
        Ok(peer) => {
            pass("calm-connects");
            let mut wakes = 0_u32;
            while event::poll(&[peer.channel.port()], Some(Instant(now().0 + 5_000_000_000))) {
                wakes += 1;
            }
            verdict!("calm-was-woken", wakes > 0);
        }
        Err(error) => fail("calm-connects", error),
    }
}
