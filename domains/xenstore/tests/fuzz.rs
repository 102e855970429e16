//! Bytes that no client should send.

mod common;

use common::{NoRings, Server};
use proptest::prelude::*;
use xenstore::domid::DomId;
use xenstore::quota;
use xenstore::wire::Header;

/// A header whose numbers are mostly meaningful, with whatever payload.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let text = proptest::collection::vec(
        prop_oneof![
            Just(0u8),
            Just(b'/'),
            Just(b'@'),
            Just(b'a'),
            Just(b'1'),
            Just(b'r'),
            any::<u8>()
        ],
        0..64,
    );
    (0u32..26, 0u32..4, text).prop_map(|(op, transaction, payload)| {
        let mut bytes = Vec::new();
        Header {
            op,
            request: 1,
            transaction,
            bytes: payload.len() as u32,
        }
        .encode(&mut bytes);
        bytes.extend(payload);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s4_random_bytes_are_survived(
        pieces in proptest::collection::vec((0u16..3, proptest::collection::vec(any::<u8>(), 0..200)), 0..40)
    ) {
        let mut server = Server::with_domains(2);
        for (client, bytes) in pieces {
            server.engine.input(DomId(client), &bytes, &mut NoRings);
            server.engine.output(DomId(client));
        }
        server.check_invariants();
    }

    #[test]
    fn s4_random_messages_are_answered(
        messages in proptest::collection::vec((0u16..3, message()), 0..120),
        reads in any::<bool>(),
    ) {
        let mut server = Server::with_domains(2);
        for (client, bytes) in messages {
            let client = DomId(client);
            if server.engine.input_wanted(client) > 0 {
                server.engine.input(client, &bytes, &mut NoRings);
            }
            if reads {
                server.receive(client.0);
            }
            prop_assert!(server.engine.output(client).len() <= (quota::OUTSTANDING + 1) * 4112);
        }
        server.check_invariants();
    }
}
