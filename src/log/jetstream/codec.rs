//! Codec: topics and names as parts of subjects, entries as NATS messages, times as the server writes them. Pure; knows no connection.

use std::fmt::Write;
use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::HeaderName;
use async_nats::HeaderValue;
use bytes::Bytes;
use bytestring::ByteString;

use crate::ids::EntryId;
use crate::log::entry::Entry;
use crate::log::entry::Headers;
use crate::log::entry::NewEntry;
use crate::topic::Topic;

/// The header with [`Entry::name`], quoted.
pub(super) const NAME: &str = "Pubsub-Name";
/// The header with [`Entry::headers`], quoted: `name=value&name=value`. One header for all, because a NATS client keeps no order among several.
pub(super) const HEADERS: &str = "Pubsub-Headers";
/// The server's header for idempotency keys; its window is the stream's.
pub(super) const MSG_ID: &str = "Nats-Msg-Id";
/// The server's header for optimistic appends.
pub(super) const EXPECTED_LAST: &str = "Nats-Expected-Last-Sequence";

/// Bytes of an encoded name up to which it stands as it is; above, it is cut there and followed by a hash. The server takes 255 in all.
const PLAIN_BYTES_MAX: usize = 150;

/// A name of letters, digits, `-`, `_` and `=` that stands for `text` and no other: what a subject's part, a file's and a stream's name can hold.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(out, "={byte:02X}")),
        }
    }
    out
}

/// The text that [`encode`] made this of; `None`: it did not.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let text = unescape(encoded, b'=')?;
    (encode(&text) == encoded).then_some(text)
}

/// As [`encode`], but bounded: a long one is cut, and a hash put behind a `~`. Two that share a hash are told apart by what they are used for.
pub(super) fn encode_bounded(text: &str) -> String {
    let mut encoded = encode(text);
    if encoded.len() > PLAIN_BYTES_MAX {
        encoded.truncate(PLAIN_BYTES_MAX);
        let _ = write!(encoded, "~{:032x}", fnv(text));
    }
    encoded
}

/// FNV-1a of 128 bits: the same in every process and version.
fn fnv(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// A header's value without control characters, blanks, `%`, `&`, `=` and what is not ASCII: those as `%XX`.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | b'&' | b'=' => drop(write!(out, "%{byte:02X}")),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// What was quoted. Another program's text that is not well quoted is itself.
pub(super) fn unquote(quoted: &str) -> ByteString {
    unescape(quoted, b'%').unwrap_or_else(|| quoted.to_owned()).into()
}

fn unescape(text: &str, mark: u8) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == mark {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// A message to be.
pub(super) struct Outgoing {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Bytes,
    pub(super) key: Option<ByteString>,
}

impl Outgoing {
    pub(super) fn of(entry: NewEntry) -> Self {
        let mut headers = Vec::new();
        if !entry.name.is_empty() {
            headers.push((NAME, quote(&entry.name)));
        }
        if !entry.headers.is_empty() {
            let pairs: Vec<_> = entry.headers.iter().map(|(name, value)| format!("{}={}", quote(name), quote(value))).collect();
            headers.push((HEADERS, pairs.join("&")));
        }
        if let Some(key) = &entry.dedup {
            // An empty key is one, too; the server takes an empty id for none.
            headers.push((MSG_ID, format!("k{}", quote(key))));
        }
        Self { headers, payload: entry.payload, key: entry.dedup }
    }

    /// What the server's `max_payload` counts.
    pub(super) fn wire_bytes(&self) -> usize {
        let lines: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        // The version line, an empty one, and room for an expected sequence.
        let frame = 10 + 2 + EXPECTED_LAST.len() + 24;
        self.payload.len() + lines + frame
    }

    pub(super) fn header_map(&self, expect_last: Option<u64>) -> Option<HeaderMap> {
        if self.headers.is_empty() && expect_last.is_none() {
            return None;
        }
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            map.insert(*name, value.as_str());
        }
        if let Some(last) = expect_last {
            map.insert(EXPECTED_LAST, last.to_string());
        }
        Some(map)
    }
}

/// The entry in a message. One that another program wrote has its own headers, by name.
pub(super) fn entry(seq: u64, headers: Option<&HeaderMap>, payload: Bytes) -> Entry {
    let get = |name| headers.and_then(|headers| headers.get(name)).map(HeaderValue::as_str);
    let ours: Option<Headers> = get(HEADERS).map(|quoted| {
        let pairs = quoted.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (unquote(name), unquote(value))).collect()
    });
    let name = get(NAME).map(unquote).unwrap_or_default();
    Entry { id: id(seq), name, payload, headers: ours.unwrap_or_else(|| headers.map(foreign).unwrap_or_default()) }
}

/// Headers as they are stored, line by line, without what is none; and whether the client reads them as they are. Where it does not, it gives up
/// its connection, or takes the message for a word of the server's own.
pub(super) fn stored_headers(stored: &[u8]) -> (HeaderMap, bool) {
    let mut lines = stored.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).peekable();
    let mut readable = lines.next().is_some_and(|version| version == b"NATS/1.0");
    let mut headers = HeaderMap::new();
    while let Some(line) = lines.next() {
        let mut more = Vec::new();
        while let Some(line) = lines.next_if(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
            more.extend_from_slice(line);
        }
        if line.is_empty() && more.is_empty() {
            continue;
        }
        let whole = String::from_utf8([line, &more].concat()).ok();
        let pair = whole.as_deref().and_then(|line| line.split_once(':'));
        // Parsed, both of them: given as texts, a carriage return in a value would be a panic of the client.
        let parsed =
            |(name, value): (&str, &str)| Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value.trim()).ok()?));
        match pair.and_then(parsed) {
            Some((name, value)) => headers.append(name, value),
            None => readable = false,
        }
    }
    (headers, readable)
}

fn foreign(headers: &HeaderMap) -> Headers {
    let mut all: Headers = headers
        .iter()
        .filter(|(name, _)| !["Nats-", "Pubsub-"].iter().any(|prefix| name.to_string().starts_with(prefix)))
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string().into(), value.as_str().to_owned().into())))
        .collect();
    // Stable: the values of one name stay in their order.
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

/// A stream's sequence number as an id.
pub(super) fn id(seq: u64) -> EntryId {
    EntryId::new(0, seq)
}

/// An id as a sequence number: one of another store is behind all.
pub(super) fn seq(id: EntryId) -> u64 {
    if id.ms() > 0 { u64::MAX } else { id.seq() }
}

/// What the reply subject of a delivered message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered<'a> {
    pub(super) stream: &'a str,
    pub(super) consumer: &'a str,
    pub(super) attempt: u32,
    pub(super) seq: u64,
    /// How many come after it.
    pub(super) pending: u64,
}

/// Reads `$JS.ACK.<stream>.<consumer>.<attempt>.<seq>.<consumer seq>.<time>.<pending>`, or the longer form with a domain and an account.
pub(super) fn delivered(reply: &str) -> Option<Delivered<'_>> {
    let parts: Vec<_> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let at = match parts.len() {
        7 => 0,
        9.. => 2,
        _ => return None,
    };
    let attempt = parts.get(at + 2)?.parse::<u64>().ok()?;
    Some(Delivered {
        stream: parts.get(at)?,
        consumer: parts.get(at + 1)?,
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
        seq: parts.get(at + 3)?.parse().ok()?,
        pending: parts.get(at + 6)?.parse().ok()?,
    })
}

/// The reply subject of a delivery that this process has not seen. The server goes by the entry's number, and that the consumer's has been given out.
pub(super) fn reply(stream: &str, consumer: &str, attempt: u32, seq: u64, consumer_seq: u64) -> String {
    format!("$JS.ACK.{stream}.{consumer}.{attempt}.{seq}.{consumer_seq}.0.0")
}

/// Milliseconds since 1970 as RFC 3339; the server counts nanoseconds in an `i64`, which ends in the year 2262.
pub(super) fn rfc3339(ms: u64) -> String {
    let ms = ms.min(i64::MAX.unsigned_abs() / 1_000_000 - 1);
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days since 0000-03-01, in eras of 400 years; H. Hinnant, "chrono-compatible low-level date algorithms".
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (seconds, ms) = (of_day / 1_000, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// The part of a subject or of a stream's name that stands for `topic`.
pub(super) fn topic_part(topic: &Topic) -> String {
    encode(topic.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_name_is_safe_and_comes_back() {
        for text in ["a", "A", "room:1", "a.b>c ", "ä\u{1F600}", "=3A", "~", "", &"ü".repeat(127)] {
            let encoded = encode(text);
            assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(text));
            assert!(encode_bounded(text).len() <= PLAIN_BYTES_MAX + 33);
        }
        for bad in ["=3a", "=4", "=", "=FF", "=41", "a.b", "a~b"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        let (one, other) = (encode_bounded(&"x".repeat(254)), encode_bounded(&"x".repeat(255)));
        assert_ne!(one, other);
    }

    #[test]
    fn a_quoted_value_is_one_line_and_comes_back() {
        for text in ["", " a ", "\r\n\0", "a=b&c%d", "ü", "100%"] {
            assert!(quote(text).bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(unquote(&quote(text)), text);
        }
        assert_eq!(unquote("100%"), "100%", "another program's own text");
    }

    #[test]
    fn of_headers_that_are_none_the_rest_is_kept() {
        let pairs = |stored: &[u8]| {
            let (headers, readable) = stored_headers(stored);
            let kept = entry(1, Some(&headers), Bytes::new());
            let pairs: Vec<_> = kept.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
            (kept.name.to_string(), pairs.join(","), readable)
        };
        let read = |name: &str, all: &str, readable| (name.to_owned(), all.to_owned(), readable);
        assert_eq!(pairs(b"NATS/1.0\r\na: 1\r\nPubsub-Name: n\r\n\r\n"), read("n", "a=1", true));
        assert_eq!(pairs(b"NATS/1.0\r\nno colon\r\na: 1\r\n\r\n"), read("", "a=1", false));
        assert_eq!(pairs(b"NATS/1.0\r\nb: \xFF\r\na: 1\r\n 2\r\n\r\n"), read("", "a=1 2", false));
        assert_eq!(pairs(b"NATS/1.0 404 None\r\na: 1\r\n\r\n"), read("", "a=1", false), "no word of the server's");
        assert_eq!(pairs(b"NATS/1.0\r\nb: 1\r2\r\na: 1\r\n\r\n"), read("", "a=1", false), "it panicked");
        assert_eq!(pairs(b"HTTP/1.1\r\na b: 1\r\n\r\n"), read("", "", false));
        assert_eq!(pairs(b""), read("", "", false));
    }

    #[test]
    fn both_forms_of_a_reply_subject_are_read_and_others_are_not() {
        let expected = Delivered { stream: "s", consumer: "c", attempt: 2, seq: 7, pending: 4 };
        assert_eq!(delivered("$JS.ACK.s.c.2.7.9.1700.4"), Some(expected));
        let expected = Delivered { stream: "s", consumer: "c", attempt: 2, seq: 7, pending: 4 };
        assert_eq!(delivered("$JS.ACK.dom.hash.s.c.2.7.9.1700.4.rnd"), Some(expected));
        for bad in ["", "$JS.ACK.", "$JS.ACK.s.c.x.7.9.1.4", "$JS.ACK.s.c.1.2.3", "inbox.s.c.2.7.9.1.4"] {
            assert_eq!(delivered(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_the_server_reads_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_826_554_321, "2000-02-29T12:15:54.321Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
            (u64::MAX, "2262-04-11T23:47:16.853Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
