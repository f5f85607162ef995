//! Endpoint: where a peer listens, as zenoh writes it. Knows no session.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::TcpListener;

use ::zenoh::config::EndPoint;

/// `tcp/host:port`, perhaps with zenoh's own `?metadata` and `#options` behind it.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) text: String,
    pub(super) port: u16,
    host: String,
    /// From where to where in `text` the port stands.
    digits: (usize, usize),
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, EndpointError> {
        let wrong = |what| EndpointError::new(text, what);
        let Some((protocol, rest)) = text.split_once('/') else { return Err(wrong("is not like tcp/host:port")) };
        if !PROTOCOLS.contains(&protocol) {
            return Err(wrong(UNKNOWN));
        }
        let address = rest.split(['?', '#']).next().unwrap_or_default();
        let Some((host, port)) = address.rsplit_once(':') else { return Err(wrong("has no port")) };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !bare.map_or(plain, |host| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())) {
            return Err(wrong("has no host that is a name, an IPv4 address, or an IPv6 address in brackets"));
        }
        let Ok(number) = port.parse::<u16>() else { return Err(wrong("has no port between 0 and 65535")) };
        if text.parse::<EndPoint>().is_err() {
            return Err(wrong("has options that zenoh does not understand"));
        }
        let start = protocol.len() + 1 + host.len() + 1;
        let host = bare.unwrap_or(host).to_owned();
        Ok(Self { text: text.to_owned(), port: number, host, digits: (start, start + port.len()) })
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    pub(super) fn with_port(&self, port: u16) -> Self {
        let (head, tail) = (&self.text[..self.digits.0], &self.text[self.digits.1..]);
        let text = format!("{head}{port}{tail}");
        let digits = (self.digits.0, text.len() - tail.len());
        Self { text, port, host: self.host.clone(), digits }
    }

    /// The same with a port that is free now; an error if this one is not.
    pub(super) fn probe(&self) -> io::Result<Self> {
        let probe = TcpListener::bind((self.host.as_str(), self.port))?;
        Ok(self.with_port(probe.local_addr()?.port()))
    }
}

/// An endpoint that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointError {
    endpoint: String,
    what: &'static str,
}

impl EndpointError {
    pub(super) fn new(endpoint: &str, what: &'static str) -> Self {
        Self { endpoint: endpoint.chars().take(200).collect(), what }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {:?} {}", self.endpoint, self.what)
    }
}

impl std::error::Error for EndpointError {}

#[cfg(feature = "zenoh-tls")]
const PROTOCOLS: &[&str] = &["tcp", "tls"];
#[cfg(not(feature = "zenoh-tls"))]
const PROTOCOLS: &[&str] = &["tcp"];
#[cfg(feature = "zenoh-tls")]
const UNKNOWN: &str = "is neither tcp/host:port nor tls/host:port";
#[cfg(not(feature = "zenoh-tls"))]
const UNKNOWN: &str = "is not tcp/host:port, and tls/host:port needs the feature zenoh-tls";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        Endpoint::parse(text).map_or_else(|error| error.to_string(), |endpoint| format!("{} {}", endpoint.host, endpoint.port))
    }

    #[test]
    fn an_endpoint_is_read_and_a_malformed_one_is_refused_with_its_value() {
        assert_eq!(check("tcp/127.0.0.1:0"), "127.0.0.1 0");
        assert_eq!(check("tcp/[::1]:7447#iface=lo"), "::1 7447");
        assert_eq!(check("tcp/node-1.example.org:65535"), "node-1.example.org 65535");
        for bad in ["", "tcp", "127.0.0.1:1", "udp/127.0.0.1:1", "tcp/", "tcp/:1", "tcp/host", "tcp/host:", "tcp/host:65536"] {
            assert!(check(bad).starts_with(&format!("endpoint {bad:?} ")), "{bad}: {}", check(bad));
        }
        for bad in ["tcp/::1:1", "tcp/[::1:1", "tcp/[x]:1", "tcp/a b:1", "tcp/*:1", "tcp/host:-1", "tcp/user@host:1"] {
            assert!(check(bad).starts_with(&format!("endpoint {bad:?} ")), "{bad}: {}", check(bad));
        }
    }

    #[test]
    fn a_port_is_put_in_where_0_was() {
        assert_eq!(Endpoint::parse("tcp/[::1]:0#iface=lo").unwrap().with_port(4_321).text, "tcp/[::1]:4321#iface=lo");
    }
}
