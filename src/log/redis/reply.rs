//! Replies: values of the protocol as values of the log. A reply of another shape is an error, never a panic. Knows no connection.

use bytes::Bytes;
use bytestring::ByteString;
use redis::Value;

use crate::ids::EntryId;
use crate::log::error::StoreError;
use crate::log::redis::error::Fault;

/// An error for a reply that is not `what`.
pub(super) fn unexpected(what: &'static str, got: &Value) -> StoreError {
    let mut got = format!("{got:?}");
    if got.len() > GOT_BYTES_MAX {
        let cut = (0..=GOT_BYTES_MAX).rev().find(|at| got.is_char_boundary(*at)).unwrap_or(0);
        got.truncate(cut);
    }
    Fault::Reply { what, got }.engine()
}

pub(super) fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected("a list", &other)),
    }
}

pub(super) fn fixed<const N: usize>(value: Value) -> Result<[Value; N], StoreError> {
    list(value)?.try_into().map_err(|values| unexpected("a list of another length", &Value::Array(values)))
}

pub(super) fn bytes(value: Value) -> Result<Bytes, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into()),
        other => Err(unexpected("a text", &other)),
    }
}

/// A text; what is no UTF-8 of it is replaced.
pub(super) fn text(value: Value) -> Result<ByteString, StoreError> {
    let bytes = bytes(value)?;
    Ok(ByteString::try_from(bytes.clone()).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
}

pub(super) fn int(value: &Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(digits) => match std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
            Some(number) => Ok(number),
            None => Err(unexpected("a number", value)),
        },
        other => Err(unexpected("a number", other)),
    }
}

/// A number that is not below zero.
pub(super) fn count(value: &Value) -> Result<u64, StoreError> {
    u64::try_from(int(value)?).map_err(|_| unexpected("a count", value))
}

/// `None` for an empty text.
pub(super) fn count_or_none(value: &Value) -> Result<Option<u64>, StoreError> {
    if is_empty(value) { Ok(None) } else { count(value).map(Some) }
}

pub(super) fn id(value: &Value) -> Result<EntryId, StoreError> {
    parse_id(value).ok_or_else(|| unexpected("an id", value))
}

/// `None` for an empty text.
pub(super) fn id_or_none(value: &Value) -> Result<Option<EntryId>, StoreError> {
    if is_empty(value) { Ok(None) } else { id(value).map(Some) }
}

fn parse_id(value: &Value) -> Option<EntryId> {
    let text = match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) => text,
        _ => return None,
    };
    let (ms, seq) = text.split_once('-')?;
    Some(EntryId::new(ms.parse().ok()?, seq.parse().ok()?))
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::BulkString(bytes) if bytes.is_empty()) || matches!(value, Value::Nil)
}

/// Bytes of an unexpected reply that an error keeps.
const GOT_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_another_shape_is_an_error_that_says_what_came() {
        let odd = [Value::Nil, Value::Int(-1), Value::BulkString(b"x-y".to_vec()), Value::Okay, Value::Double(1.5)];
        for value in &odd {
            assert!(id(value).is_err() && count(value).is_err(), "{value:?}");
        }
        assert!(
            fixed::<2>(Value::Array(vec![Value::Okay])).is_err() && list(Value::Int(1)).is_err() && bytes(Value::Int(1)).is_err()
        );
        let error = id(&Value::BulkString(b"1-".to_vec())).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("an id"), "{cause}");
        let long = Value::BulkString("ä".repeat(1_000).into_bytes());
        assert!(std::error::Error::source(&id(&long).unwrap_err()).unwrap().to_string().len() < 300);
    }

    #[test]
    fn ids_at_the_extremes_are_read() {
        assert_eq!(id(&Value::BulkString(EntryId::MAX.to_string().into_bytes())).unwrap(), EntryId::MAX);
        assert!(id(&Value::BulkString(b"18446744073709551616-0".to_vec())).is_err());
    }
}
