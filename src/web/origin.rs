//! Origin: whether a browser may talk to us from the page that it names. Knows headers and a list.

use actix_web::http::header::HOST;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::ORIGIN;

use crate::web::refusal::Refusal;

/// Checks the `Origin` (RFC 6454; RFC 6455, section 10.2) of a WebSocket's handshake, which browsers send across origins without asking: the same host and port,
/// or one of those allowed. Programs that are no browser send none, and could send any.
pub(crate) fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = String::from_utf8_lossy(origin.as_bytes());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let same = authority.is_some_and(|authority| !host.is_empty() && authority.eq_ignore_ascii_case(host));
    if same || allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(&origin)) {
        return Ok(());
    }
    Err(Refusal { code: "origin".into(), ..Refusal::denied(format!("origin {:?} is not allowed", shorten(&origin))) })
}

/// A stranger's text inside an error message: its first 120 characters.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn check_from(origin: Option<&str>, host: &str, allowed: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let allowed: Vec<_> = allowed.iter().map(|&of| of.to_owned()).collect();
        check(&headers, &allowed).is_ok()
    }

    #[test]
    fn only_the_own_origin_and_those_allowed_by_name_pass() {
        assert!(check_from(None, "a.example", &[]));
        assert!(check_from(Some("https://A.example:8443"), "a.example:8443", &[]));
        assert!(!check_from(Some("https://a.example"), "a.example:8443", &[]));
        assert!(!check_from(Some("https://a.example.evil.example"), "a.example", &[]));
        assert!(!check_from(Some("null"), "a.example", &[]));
        assert!(!check_from(Some(""), "", &[]));
        assert!(check_from(Some("https://shop.example"), "api.example", &["https://shop.example"]));
        assert!(!check_from(Some("http://shop.example"), "api.example", &["https://shop.example"]));
        assert!(!check_from(Some("https://shop.example.evil.example"), "api.example", &["https://shop.example"]));
        assert!(check_from(Some("null"), "a.example", &["*"]));
    }
}
