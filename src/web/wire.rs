//! Wire: an event as clients receive it, made once for all of them. Knows the two formats and no connection.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;

use crate::encodings::Form;
use crate::encodings::made;
use crate::event::Head;
use crate::event::Wire;
use crate::log::Gap;
use crate::log::GapCause;
use crate::web::blob::Blob;

/// One WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(ByteString),
    Binary(Bytes),
}

/// An event as a WebSocket message. `None`: it has no JSON form. `name` is what it is called to clients.
pub(crate) fn frame(event: &Arc<dyn Wire>, name: &str) -> Option<Frame> {
    if name == <Blob as crate::event::Payload>::NAME {
        return formed(event, name, blob).map(Frame::Binary);
    }
    let bytes = formed(event, name, text)?;
    // It was text when it was made; checking it costs less than sending it.
    ByteString::try_from(bytes).ok().map(Frame::Text)
}

fn text(event: &Arc<dyn Wire>, name: &str) -> Option<Bytes> {
    let json = event.json()?;
    let mut text = head(event, name);
    text.truncate(text.len() - 1);
    text.reserve(json.len() + 9);
    text.push_str(r#","data":"#);
    text.push_str(&json);
    text.push('}');
    Some(Bytes::from(text))
}

/// The event without its data, as an object.
fn head(event: &Arc<dyn Wire>, name: &str) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        r#type: &'static str,
        topic: &'a str,
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    }
    let id = event.id().map(|id| id.to_string());
    let shown = Shown { r#type: "event", topic: event.topic().as_str(), event: name, id };
    // Strings only: it has a JSON form.
    serde_json::to_string(&shown).unwrap_or_else(|_| String::from("{}"))
}

/// The bytes that `make` makes of an event, made once.
pub(crate) fn formed(event: &Arc<dyn Wire>, name: &str, make: fn(&Arc<dyn Wire>, &str) -> Option<Bytes>) -> Option<Bytes> {
    cached(event, name, make as Form, || make(event, name))
}

/// The bytes of a form, made once for all who call the event by its own name. What another program wrote into the log without a name is called otherwise at each
/// endpoint, so it is made for each client.
pub(crate) fn cached(event: &Arc<dyn Wire>, name: &str, form: Form, make: impl Fn() -> Option<Bytes>) -> Option<Bytes> {
    if event.name() == name { event.encodings().get(form, make) } else { made(make) }
}

fn blob(event: &Arc<dyn Wire>, name: &str) -> Option<Bytes> {
    let blob = match Arc::clone(event).erase().downcast::<Head<Blob>>() {
        Ok(head) => head.payload().clone(),
        // Out of the log it comes as it was written.
        Err(_) => serde_json::from_str(&event.json()?).ok()?,
    };
    let mut bytes = head(event, name).into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&blob);
    Some(Bytes::from(bytes))
}

/// A gap as clients are told of it.
#[derive(Debug, Serialize)]
pub(crate) struct GapShown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    topic: &'a str,
    after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    cause: &'static str,
}

impl<'a> GapShown<'a> {
    /// `tagged`: with the type that a WebSocket message has.
    pub(crate) fn new(gap: &'a Gap, tagged: bool) -> Self {
        Self {
            r#type: tagged.then_some("gap"),
            topic: gap.topic.as_str(),
            after: gap.asked_after.to_string(),
            first: gap.resumes_at.map(|id| id.to_string()),
            cause: match gap.cause {
                GapCause::Trimmed => "trimmed",
                GapCause::Ahead => "ahead",
                GapCause::Undecodable => "undecodable",
            },
        }
    }

    pub(crate) fn json(&self) -> String {
        // Strings only: it has a JSON form.
        serde_json::to_string(self).unwrap_or_else(|_| String::from("{}"))
    }
}
