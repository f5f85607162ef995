//! Encodings: what was computed from one event for a wire, kept for all who send it. Knows no event and no format.

#[cfg(feature = "web")]
use std::panic::AssertUnwindSafe;
#[cfg(feature = "web")]
use std::panic::catch_unwind;
#[cfg(feature = "web")]
use std::sync::OnceLock;

#[cfg(feature = "web")]
use bytes::Bytes;

/// The encoded forms of one event, each made by who asks first. Nothing without the feature `web`.
#[derive(Default)]
pub(crate) struct Encodings {
    /// A list, because nobody knows before how many forms there will be; most events have none or one.
    #[cfg(feature = "web")]
    first: OnceLock<Box<Encoding>>,
}

#[cfg(feature = "web")]
struct Encoding {
    form: Form,
    bytes: Option<Bytes>,
    others: Encodings,
}

/// Which form: the address of the function that makes it. Two functions at one address are the same code.
#[cfg(feature = "web")]
pub(crate) type Form = usize;

#[cfg(feature = "web")]
impl Encodings {
    /// The bytes of a form, made now if nobody has before. `None`: it has none, or the program's code panicked when it was made, which its hook has told:
    /// one message is not to end the connections of all who would get it.
    pub(crate) fn get(&self, form: Form, make: impl Fn() -> Option<Bytes>) -> Option<Bytes> {
        let mut at = self;
        loop {
            let encoding = at.first.get_or_init(|| Box::new(Encoding { form, bytes: made(&make), others: Self::default() }));
            if encoding.form == form {
                return encoding.bytes.clone();
            }
            at = &encoding.others;
        }
    }
}

#[cfg(feature = "web")]
pub(crate) fn made(make: impl Fn() -> Option<Bytes>) -> Option<Bytes> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_default()
}

#[cfg(all(test, feature = "web"))]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn each_form_is_made_once() {
        let (encodings, made) = (Encodings::default(), Cell::new(0));
        let get = |form: Form| {
            encodings.get(form, || {
                made.set(made.get() + 1);
                (form != 3).then(|| Bytes::from(form.to_string()))
            })
        };
        for _ in 0..3 {
            assert_eq!((get(1), get(2), get(3)), (Some(Bytes::from("1")), Some(Bytes::from("2")), None));
        }
        assert_eq!(made.get(), 3);
    }
}
