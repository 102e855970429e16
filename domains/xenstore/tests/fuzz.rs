//! Bytes that no client should send.

mod common;

use common::{NoRings, Server};
use proptest::prelude::*;
use xen_rings::ring::RingError;
use xen_rings::store::{Message, MessageReader};
use xenstore::domid::DomId;
use xenstore::quota;

/// A type, a transaction and a payload that are mostly meaningful.
fn message() -> impl Strategy<Value = (u32, u32, Vec<u8>)> {
    let byte = prop_oneof![Just(0u8), Just(b'/'), Just(b'@'), Just(b'a'), Just(b'1'), Just(b'r'), any::<u8>()];
    (0u32..26, 0u32..4, proptest::collection::vec(byte, 0..64))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s4_random_bytes_are_survived(
        client in 0u16..3,
        mut bytes in proptest::collection::vec(prop_oneof![3 => 0u8..3, 1 => any::<u8>()], 0..3000),
    ) {
        let mut server = Server::with_domains(2);
        let mut reader = MessageReader::new();
        let mut source = |into: &mut [u8]| {
            let count = into.len().min(bytes.len());
            into[..count].copy_from_slice(&bytes[..count]);
            bytes.drain(..count);
            Ok::<_, RingError>(count)
        };
        loop {
            match reader.poll(&mut source) {
                Ok(Some(message)) => server.engine.request(DomId(client), &message, &mut NoRings),
                Ok(None) => break,
                Err(_) => {
                    server.engine.cut_off(DomId(client));
                    break;
                }
            }
            server.receive(client);
        }
        server.check_invariants();
    }

    #[test]
    fn s4_random_messages_are_answered(
        messages in proptest::collection::vec((0u16..3, message()), 0..120),
        reads in any::<bool>(),
    ) {
        let mut server = Server::with_domains(2);
        for (client, (kind, transaction, payload)) in messages {
            if server.engine.takes_requests(DomId(client)) {
                let head = xen_abi::io::xs_wire::XsdSockmsg {
                    kind,
                    req_id: 1,
                    tx_id: transaction,
                    len: payload.len() as u32,
                };
                let message = Message { head, payload: &payload };
                server.engine.request(DomId(client), &message, &mut NoRings);
            }
            if reads {
                server.receive(client);
            }
            prop_assert!(server.engine.output(DomId(client)).len() <= (quota::OUTSTANDING + 1) * 4112);
        }
        server.check_invariants();
    }
}
