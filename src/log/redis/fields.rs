//! Fields: an entry of the log as the fields of a stream entry, and any stream entry as one of the log. Knows no connection.

use bytes::Bytes;
use bytestring::ByteString;
use redis::Cmd;
use redis::Value;

use crate::ids::EntryId;
use crate::log::entry::Entry;
use crate::log::entry::NewEntry;
use crate::log::error::StoreError;
use crate::log::redis::reply;

/// The field with the message's name.
const NAME: &str = "name";
/// The field with the message.
const PAYLOAD: &str = "payload";
/// Before the name of a header, so that none is taken for one of the fields above.
const HEADER: &str = "h:";

/// How many arguments [`write`] adds.
pub(super) fn args(entry: &NewEntry) -> usize {
    2 * (usize::from(!entry.name.is_empty()) + 1 + entry.headers.len())
}

/// Adds the entry's fields to a command.
pub(super) fn write(entry: &NewEntry, command: &mut Cmd) {
    if !entry.name.is_empty() {
        command.arg(NAME).arg(&*entry.name);
    }
    command.arg(PAYLOAD).arg(&*entry.payload);
    let mut field = String::new();
    for (name, value) in &entry.headers {
        field.clear();
        field.push_str(HEADER);
        field.push_str(name);
        command.arg(&field).arg(&**value);
    }
}

/// An entry as `XRANGE` gives it: its id and its fields.
pub(super) fn entry(value: Value) -> Result<Entry, StoreError> {
    let [id, fields] = reply::fixed(value)?;
    read(reply::id(&id)?, fields)
}

/// The entry of these fields.
pub(super) fn read(id: EntryId, fields: Value) -> Result<Entry, StoreError> {
    let mut fields = reply::list(fields)?;
    let is = |field: &Value, name: &str| matches!(field, Value::BulkString(bytes) if bytes == name.as_bytes());
    let mut entry = Entry { id, name: ByteString::new(), payload: Bytes::new(), headers: Vec::new() };
    if !fields.iter().step_by(2).any(|field| is(field, PAYLOAD)) {
        return foreign(entry, fields);
    }
    let (mut has_name, mut has_payload) = (false, false);
    let mut rest = fields.drain(..);
    while let (Some(field), Some(value)) = (rest.next(), rest.next()) {
        if !has_payload && is(&field, PAYLOAD) {
            entry.payload = reply::bytes(value)?;
            has_payload = true;
        } else if !has_name && is(&field, NAME) {
            entry.name = reply::text(value)?;
            has_name = true;
        } else {
            let field = reply::text(field)?;
            let name = match field.strip_prefix(HEADER) {
                Some(name) => ByteString::from(name),
                None => field,
            };
            entry.headers.push((name, reply::text(value)?));
        }
    }
    Ok(entry)
}

/// Of another program, with fields of its own: all of them are one JSON object of texts. A field that stands twice has its last value.
fn foreign(mut entry: Entry, fields: Vec<Value>) -> Result<Entry, StoreError> {
    let mut object = serde_json::Map::new();
    let mut rest = fields.into_iter();
    while let (Some(field), Some(value)) = (rest.next(), rest.next()) {
        let (field, value) = (reply::text(field)?, reply::text(value)?);
        if field == NAME && entry.name.is_empty() {
            entry.name = value.clone();
        }
        object.insert(field.to_string(), serde_json::Value::String(value.to_string()));
    }
    entry.payload = serde_json::Value::Object(object).to_string().into();
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn of(fields: &[&str]) -> Entry {
        entry(Value::Array(vec![text("1-2"), Value::Array(fields.iter().map(|field| text(field)).collect())])).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_a_header_may_be_called_anything() {
        let new = NewEntry::new("n", "p")
            .header("payload", "1")
            .header("name", "")
            .header("h:", "2")
            .header("", "3")
            .header("h:x", "4");
        let mut command = Cmd::new();
        write(&new, &mut command);
        let fields: Vec<_> = command
            .args_iter()
            .map(|arg| match arg {
                redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
                _ => Value::Nil,
            })
            .collect();
        assert_eq!(fields.len(), args(&new));
        let entry = read(EntryId::MIN, Value::Array(fields)).unwrap();
        assert_eq!((entry.name, entry.payload, entry.headers), (new.name, new.payload, new.headers));
    }

    #[test]
    fn fields_of_another_program_are_headers_or_one_object() {
        let entry = of(&["user", "ann", "payload", "x", "name", "made", "payload", "y"]);
        assert_eq!((&*entry.name, &*entry.payload), ("made", b"x".as_slice()));
        assert_eq!((entry.header("user"), entry.header("payload")), (Some("ann"), Some("y")));
        let entry = of(&["temp", "19.8", "name", "weather", "note", "a\"b"]);
        assert_eq!(entry.name, "weather");
        assert_eq!(entry.payload, r#"{"name":"weather","note":"a\"b","temp":"19.8"}"#);
        assert!(entry.headers.is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_in_a_payload_and_replaced_elsewhere() {
        let raw = Value::BulkString(vec![0xff, 0]);
        let fields = Value::Array(vec![text("payload"), raw.clone(), raw.clone(), raw.clone()]);
        let entry = read(EntryId::MIN, fields).unwrap();
        assert_eq!(&*entry.payload, [0xff, 0]);
        assert_eq!(entry.headers, [("\u{fffd}\0".into(), "\u{fffd}\0".into())]);
        assert!(read(EntryId::MIN, Value::Array(vec![text("payload"), Value::Int(1)])).is_err());
    }
}
