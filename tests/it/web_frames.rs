//! Frames: what a WebSocket endpoint does with each byte of a frame that is right or wrong (RFC 6455), said over a plain socket.

use std::net::Shutdown;
use std::net::SocketAddr;
use std::sync::OnceLock;

use actix_pubsub::PubSub;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Limits;
use actix_pubsub::web::WebSocket;
use serde_json::json;

use crate::support::Word;
use crate::web_support::BINARY;
use crate::web_support::CLOSE;
use crate::web_support::FIN;
use crate::web_support::PING;
use crate::web_support::PONG;
use crate::web_support::Raw;
use crate::web_support::TEXT;
use crate::web_support::close;
use crate::web_support::frame;
use crate::web_support::frame_in;
use crate::web_support::serve;

/// One server for all of them.
fn server() -> SocketAddr {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    *SERVER.get_or_init(|| {
        let pubsub = PubSub::new();
        let mut limits = Limits::default();
        (limits.frames_per_second, limits.frames_burst) = (100_000, 100_000);
        Edge::builder().limits(limits).attach(&pubsub).unwrap();
        let socket = WebSocket::new(&pubsub).message::<Word>().publish::<Word>();
        serve(&pubsub, move |config| {
            config.route("/ws", socket.route());
        })
    })
}

/// What these bytes end a connection with.
fn check(bytes: &[u8]) -> u16 {
    let mut raw = Raw::connect(server());
    raw.send(bytes);
    raw.closed()
}

/// That a client that said these bytes is still answered.
fn check_lives(raw: &mut Raw) {
    raw.say(&json!({"type":"ping","ref":99}));
    assert_eq!(raw.json(), json!({"type":"pong","ref":99}));
}

const CONTINUE: u8 = 0;
const PING_TEXT: &[u8] = br#"{"type":"ping","ref":1}"#;

#[test]
fn reserved_bits_are_a_protocol_error() {
    for bits in [0x40, 0x20, 0x10, 0x70] {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            assert_eq!(check(&frame(FIN | bits | opcode, b"")), 1002, "{bits:x} {opcode}");
        }
    }
}

#[test]
fn reserved_opcodes_are_a_protocol_error() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(check(&frame(FIN | opcode, b"")), 1002, "{opcode}");
        assert_eq!(check(&frame(FIN | opcode, b"payload")), 1002, "{opcode}");
    }
}

#[test]
fn a_frame_without_a_mask_is_a_protocol_error() {
    assert_eq!(check(&[FIN | TEXT, 2, b'{', b'}']), 1002);
    assert_eq!(check(&[FIN | PING, 0]), 1002);
    assert_eq!(check(&[FIN | CLOSE, 0]), 1002);
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [PING, PONG, CLOSE] {
        assert_eq!(check(&frame(opcode, b"")), 1002, "fragmented {opcode}");
        assert_eq!(check(&frame(FIN | opcode, &[b'x'; 126])), 1002, "long {opcode}");
        // Decided by the head: nobody has to send the rest.
        assert_eq!(check(&frame(FIN | opcode, &[b'x'; 126])[..4]), 1002, "the head of a long {opcode}");
        assert_eq!(check(&frame(opcode, &[b'x'; 20])[..2]), 1002, "the head of a fragmented {opcode}");
    }
}

#[test]
fn fragments_begin_go_on_and_end() {
    assert_eq!(check(&frame(FIN | CONTINUE, b"x")), 1002);
    assert_eq!(check(&frame(CONTINUE, b"x")), 1002);
    for first in [TEXT, BINARY] {
        for second in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
            assert_eq!(check(&[frame(first, b"a"), frame(second, b"b")].concat()), 1002, "{first} {second}");
        }
    }
    // After the last fragment there is none to go on with.
    let whole = [frame(TEXT, &PING_TEXT[..5]), frame(FIN | CONTINUE, &PING_TEXT[5..])].concat();
    assert_eq!(check(&[whole.clone(), frame(CONTINUE, b"x")].concat()), 1002);
    let mut raw = Raw::connect(server());
    raw.send(&whole);
    assert_eq!(raw.json(), json!({"type":"pong","ref":1}));
    check_lives(&mut raw);
}

#[test]
fn a_close_code_that_may_be_said_is_answered_and_any_other_is_a_protocol_error() {
    for code in [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        assert_eq!(check(&close(code, b"bye")), code);
        assert_eq!(check(&close(code, b"")), code);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(check(&close(code, b"")), 1002, "{code}");
        assert_eq!(check(&close(code, b"bye")), 1002, "{code}");
    }
}

#[test]
fn a_close_frame_is_checked_as_a_whole() {
    assert_eq!(check(&frame(FIN | CLOSE, b"")), 1005, "without a code it is answered without one");
    assert_eq!(check(&frame(FIN | CLOSE, b"\x03")), 1002);
    assert_eq!(check(&close(1000, &[b'x'; 123])), 1000);
    assert!([1002, 1007].contains(&check(&close(1000, b"\xff\xfe"))));
    assert!([1002, 1007].contains(&check(&close(1000, b"cut \xe2\x82"))));
}

#[test]
fn text_that_is_no_utf8_ends_the_connection_with_its_own_code() {
    for text in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"ok \xe2\x82", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80"] {
        assert_eq!(check(&frame(FIN | TEXT, text)), 1007, "{text:?}");
        for cut in 0..=text.len() {
            let fragments = [frame(TEXT, &text[..cut]), frame(FIN | CONTINUE, &text[cut..])].concat();
            assert_eq!(check(&fragments), 1007, "{text:?} cut at {cut}");
        }
    }
    // Characters that are cut are whole in the end.
    let text = "{\"type\":\"ping\",\"ref\":1,\"topic\":\"\u{20ac}\u{1f600}\"}".as_bytes();
    let mut raw = Raw::connect(server());
    for cut in 1..text.len() {
        raw.send(&[frame(TEXT, &text[..cut]), frame(CONTINUE, b""), frame(FIN | CONTINUE, &text[cut..])].concat());
        assert_eq!(raw.json(), json!({"type":"pong","ref":1}));
    }
}

#[test]
fn pings_are_answered_with_their_bytes_also_within_a_message() {
    let mut raw = Raw::connect(server());
    for payload in [&b""[..], b"x", &[0; 125], b"\xff\xfe\0"] {
        raw.send(&frame(FIN | PING, payload));
        assert_eq!(raw.next(), Some((FIN | PONG, payload.to_vec())));
    }
    raw.send(&frame(TEXT, &PING_TEXT[..9]));
    raw.send(&frame(FIN | PING, b"1"));
    assert_eq!(raw.next(), Some((FIN | PONG, b"1".to_vec())));
    raw.send(&frame(FIN | PONG, b"nobody asked"));
    raw.send(&frame(CONTINUE, b""));
    raw.send(&frame(FIN | PING, b"2"));
    assert_eq!(raw.next(), Some((FIN | PONG, b"2".to_vec())));
    raw.send(&frame(FIN | CONTINUE, &PING_TEXT[9..]));
    assert_eq!(raw.json(), json!({"type":"pong","ref":1}));
    // A close in the middle is one.
    raw.send(&[frame(TEXT, b"{"), close(1000, b"")].concat());
    assert_eq!(raw.closed(), 1000);
}

#[test]
fn frames_may_be_cut_at_every_byte_and_come_many_at_once() {
    let mut raw = Raw::connect(server());
    let one = frame(FIN | TEXT, PING_TEXT);
    for cut in 1..one.len() {
        raw.send(&one[..cut]);
        raw.send(&one[cut..]);
        assert_eq!(raw.json(), json!({"type":"pong","ref":1}));
    }
    for byte in &one {
        raw.send(&[*byte]);
    }
    assert_eq!(raw.json(), json!({"type":"pong","ref":1}));
    let many: Vec<u8> = (0..300).flat_map(|n| frame(FIN | TEXT, json!({"type":"ping","ref":n}).to_string().as_bytes())).collect();
    raw.send(&many);
    for n in 0..300 {
        assert_eq!(raw.json(), json!({"type":"pong","ref":n}));
    }
}

#[test]
fn what_comes_after_a_close_is_ignored() {
    let publish = json!({"type":"publish","ref":1,"topic":"after","event":"test.word","data":"x"}).to_string();
    let after = [frame(FIN | TEXT, publish.as_bytes()), frame(FIN | PING, b"x"), frame(FIN | 3, b"")];
    for after in after {
        assert_eq!(check(&[close(1000, b""), after].concat()), 1000);
    }
    // A second one after the first was answered, and the end of what the client says.
    let mut raw = Raw::connect(server());
    raw.send(&close(1001, b""));
    let _ = raw.socket.shutdown(Shutdown::Write);
    assert_eq!(raw.closed(), 1001);
}

#[test]
fn a_length_has_its_shortest_form() {
    for (bits, payload) in [(16, 0), (16, 125), (64, 0), (64, 125), (64, 126), (64, 60_000)] {
        assert_eq!(check(&frame_in(bits, FIN | BINARY, &vec![b'x'; payload])), 1002, "{payload} in {bits} bits");
    }
    let mut raw = Raw::connect(server());
    for length in [125, 126, 127, 65_535, 65_536] {
        raw.send(&frame(FIN | TEXT, &vec![b' '; length]));
        assert_eq!(raw.json()["code"], "bad_json");
    }
}

#[test]
fn a_length_with_its_highest_bit_or_past_the_limit_is_too_much() {
    let mut head = vec![FIN | BINARY, 0xff];
    head.extend([0xff; 8]);
    assert!([1002, 1009].contains(&check(&head)));
    assert_eq!(check(&frame(FIN | TEXT, &vec![b' '; 65_537])), 1009);
    assert_eq!(check(&frame(FIN | BINARY, &vec![b' '; 1 << 20])), 1009, "the answer is not lost with what was not read");
    assert_eq!(check(&[frame(TEXT, &vec![b' '; 65_536]), frame(FIN | CONTINUE, b" ")].concat()), 1009);
}

#[test]
fn a_client_that_is_only_half_there_is_gone() {
    for bytes in [&b""[..], &frame(FIN | TEXT, PING_TEXT)[..5], &frame(TEXT, b"begun")] {
        let mut raw = Raw::connect(server());
        raw.send(bytes);
        raw.socket.shutdown(Shutdown::Write).unwrap();
        while raw.next().is_some() {}
    }
}
