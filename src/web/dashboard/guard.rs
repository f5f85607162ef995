//! Guard: who may look at a dashboard, and what each of its answers says to browsers. Knows requests and no pub/sub.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::Error;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceRequest;
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::http::Version;
use actix_web::http::header;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderName;
use actix_web::http::header::HeaderValue;
use actix_web::middleware::Next;

use crate::web::dashboard::page;
use crate::web::origin;
use crate::web::origin::shorten;
use crate::web::refusal::Refusal;

/// The hook that decides; without one, only who sits at the machine may look.
#[derive(Clone, Default)]
pub(crate) struct Guard {
    hook: Option<Arc<dyn Ask>>,
}

trait Ask: Send + Sync {
    fn ask<'a>(&'a self, request: &'a HttpRequest) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;
}

struct Hook<F, E>(F, PhantomData<fn() -> E>);

impl<F, E> Ask for Hook<F, E>
where
    F: AsyncFn(&HttpRequest) -> Result<(), E> + Send + Sync,
    E: Into<Error>,
{
    fn ask<'a>(&'a self, request: &'a HttpRequest) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>> {
        Box::pin(async move { (self.0)(request).await.map_err(Into::into) })
    }
}

impl Guard {
    pub(crate) fn asking<F, E>(hook: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Error> + 'static,
    {
        Self { hook: Some(Arc::new(Hook(hook, PhantomData))) }
    }

    /// Lets a request through, or answers it; and puts on the answer what keeps a browser from doing more with it than showing it.
    pub(crate) async fn pass(&self, request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
        let mut response = match self.check(request.request()).await {
            Ok(()) => next.call(request).await?,
            Err(answer) => request.into_response(answer),
        };
        harden(response.headers_mut());
        Ok(response)
    }

    async fn check(&self, request: &HttpRequest) -> Result<(), HttpResponse> {
        let refused = |refusal: Refusal| page::refuse(request, &refusal);
        match &self.hook {
            Some(hook) => hook.ask(request).await.map_err(|error| error.error_response())?,
            None => local(request).map_err(refused)?,
        }
        match *request.method() {
            Method::GET | Method::HEAD => Ok(()),
            ref other => {
                let message = format!("method {:?} is not served, the dashboard only reads", shorten(other.as_str()));
                let mut answer = refused(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message));
                answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                Err(answer)
            }
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hook.is_some() { "Guard(asks)" } else { "Guard(loopback only)" })
    }
}

fn local(request: &HttpRequest) -> Result<(), Refusal> {
    comes_from_here(request.peer_addr(), request.version())?;
    stands_alone(request.app_config().local_addr(), request.headers(), request.uri().host())?;
    // A page of another origin may read nothing here, whatever the rest of the server allows it, nor make the server work.
    origin::check(request.headers(), &[])?;
    is_of_this_site(request.headers())
}

/// nginx, if nobody told it more, names its upstream as the host and adds no header that tells of itself; but it speaks HTTP/1.0 then (before its version 1.29.7),
/// which nobody else does. What comes by a Unix socket comes from a proxy.
fn comes_from_here(peer: Option<SocketAddr>, version: Version) -> Result<(), Refusal> {
    match peer {
        Some(peer) if is_loopback(peer.ip()) => {}
        Some(peer) => return Err(closed(&format!("the request comes from {}", peer.ip()))),
        None => return Err(closed("the request comes from no network address, as those of a proxy at a Unix socket")),
    }
    if version < Version::HTTP_11 {
        return Err(closed(&format!("the request is of {version:?}, as those of proxies are")));
    }
    Ok(())
}

/// A page of another site may lead here, by a link that somebody follows, and do nothing else: browsers say so by
/// [Fetch Metadata](https://www.w3.org/TR/fetch-metadata/), also where they name no origin, as for an image.
fn is_of_this_site(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match text("sec-fetch-site").as_deref() {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_)
            if text("sec-fetch-mode").as_deref() == Some("navigate") && text("sec-fetch-dest").as_deref() == Some("document") =>
        {
            Ok(())
        }
        Some(site) => Err(closed(&format!("a page of another origin asks ({:?})", shorten(site)))),
    }
}

/// Whether a request came from this machine, as far as a server can know: to a loopback address, by a loopback name, past no proxy.
fn stands_alone(listens: SocketAddr, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
    if !is_loopback(listens.ip()) {
        return Err(closed(&format!("this server listens on {listens}, which is no loopback address")));
    }
    if let Some(passed_on) = headers.keys().find(|name| names_a_proxy(name)) {
        return Err(closed(&format!("a proxy passed the request on, it has the header {passed_on}")));
    }
    let mut hosts = headers.get_all(header::HOST).map(|host| host.to_str().unwrap_or_default()).chain(authority).peekable();
    if hosts.peek().is_none() {
        return Err(closed("the request names no host"));
    }
    match hosts.find(|host| !names_loopback(host)) {
        Some(host) => Err(closed(&format!("the host {:?} is no loopback name", shorten(host)))),
        None => Ok(()),
    }
}

fn closed(why: &str) -> Refusal {
    let message = format!(
        "without an authorisation the dashboard is for this machine alone, and {why}: open it at 127.0.0.1, or set `Dashboard::authorize`"
    );
    Refusal { code: "not_local".into(), ..Refusal::denied(message) }
}

fn names_a_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    ["x-forwarded", "x-envoy", "x-amzn", "x-original"].iter().any(|begin| name.starts_with(begin))
        || ["client-ip", "connecting-ip"].iter().any(|end| name.ends_with(end))
        || matches!(name, "forwarded" | "via" | "x-real-ip" | "cdn-loop")
}

/// `localhost` or a loopback address, with a port or without (RFC 9110, section 7.2).
fn names_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((literal, port)) => (literal, port),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.strip_suffix('.').unwrap_or(name);
    port_fits && (name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback))
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// On each answer, refusals included.
fn harden(headers: &mut HeaderMap) {
    if !headers.get(header::CONTENT_TYPE).is_some_and(|of| of.as_bytes().starts_with(b"text/event-stream")) {
        // A stream says so itself, and more.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}

/// The page runs no script and takes no style but its own, and talks to nobody but its server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_or_past_a_silent_proxy_is_refused() {
        let check = |peer: Option<&str>, version| {
            comes_from_here(peer.map(|peer| peer.parse().unwrap()), version).map_err(|refusal| refusal.message)
        };
        let own = Some("127.0.0.1:50000");
        assert_eq!((check(own, Version::HTTP_11), check(Some("[::1]:1"), Version::HTTP_2)), (Ok(()), Ok(())));
        assert_eq!(check(Some("[::ffff:127.0.0.1]:1"), Version::HTTP_11), Ok(()));
        let refused = [
            check(own, Version::HTTP_10),
            check(own, Version::HTTP_09),
            check(Some("192.0.2.1:1"), Version::HTTP_11),
            check(None, Version::HTTP_11),
        ];
        for refusal in refused {
            let message = refusal.unwrap_err();
            assert!(message.contains("Dashboard::authorize"), "{message}");
        }
    }

    #[test]
    fn a_page_of_another_site_may_only_lead_here() {
        let check = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            is_of_this_site(&headers).is_ok()
        };
        let (site, mode, dest) = ("sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest");
        assert!(check(&[]), "a program");
        assert!(check(&[(site, "none"), (mode, "navigate")]) && check(&[(site, "same-origin"), (mode, "cors")]));
        assert!(check(&[(site, "cross-site"), (mode, "navigate"), (dest, "document")]), "a link");
        assert!(!check(&[(site, "cross-site"), (mode, "navigate"), (dest, "iframe")]));
        assert!(!check(&[(site, "cross-site"), (mode, "no-cors"), (dest, "image")]));
        assert!(!check(&[(site, "same-site"), (mode, "no-cors"), (dest, "empty")]), "another port of this machine");
        assert!(!check(&[(site, "cross-site")]) && !check(&[(site, "later"), (mode, "cors")]));
    }

    #[test]
    fn only_loopback_names_and_literals_are_local_hosts() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1:1",
            "127.9.8.7",
            "[::1]",
            "[::1]:443",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(names_loopback(host), "{host}");
        }
        let strangers = [
            "",
            ":80",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "127.0.0.1:80@example.com",
            "127.0.0.1:x",
            "0.0.0.0:80",
            "10.0.0.1",
            "[::]",
            "[::1]x",
            "[::1",
            "::1",
            "2130706433",
            "localhost:80:80",
        ];
        for host in strangers {
            assert!(!names_loopback(host), "{host}");
        }
    }

    #[test]
    fn each_sign_of_a_stranger_is_refused_and_says_what_to_set() {
        let check = |listens: &str, fields: &[(&'static str, &str)], authority: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            stands_alone(listens.parse().unwrap(), &headers, authority).map_err(|refusal| refusal.message)
        };
        let own = ("host", "127.0.0.1:8080");
        assert_eq!(check("127.0.0.1:8080", &[own], None), Ok(()));
        assert_eq!(check("[::1]:8080", &[("host", "localhost:8080")], None), Ok(()));
        assert_eq!(check("127.0.0.1:8080", &[], Some("localhost")), Ok(()), "HTTP/2 has it in the URI");
        let refused = [
            check("0.0.0.0:8080", &[own], None),
            check("[::]:8080", &[own], None),
            check("192.0.2.1:8080", &[own], None),
            check("127.0.0.1:8080", &[("host", "rebound.example:8080")], None),
            check("127.0.0.1:8080", &[own, ("host", "rebound.example")], None),
            check("127.0.0.1:8080", &[own], Some("rebound.example")),
            check("127.0.0.1:8080", &[], None),
            check("127.0.0.1:8080", &[own, ("forwarded", "for=192.0.2.1")], None),
            check("127.0.0.1:8080", &[own, ("x-forwarded-for", "192.0.2.1")], None),
            check("127.0.0.1:8080", &[own, ("x-forwarded-host", "127.0.0.1")], None),
            check("127.0.0.1:8080", &[own, ("x-real-ip", "127.0.0.1")], None),
            check("127.0.0.1:8080", &[own, ("true-client-ip", "127.0.0.1")], None),
            check("127.0.0.1:8080", &[own, ("cf-connecting-ip", "127.0.0.1")], None),
            check("127.0.0.1:8080", &[own, ("x-envoy-external-address", "127.0.0.1")], None),
            check("127.0.0.1:8080", &[own, ("cdn-loop", "cdn")], None),
        ];
        for (index, refusal) in refused.into_iter().enumerate() {
            let message = refusal.expect_err(&index.to_string());
            assert!(message.contains("Dashboard::authorize"), "{message}");
        }
    }
}
