//! Address: a client of the `redis` crate, as everything here uses one, for a URL. Knows no commands.

use redis::Client;
use redis::IntoConnectionInfo;
use redis::ProtocolVersion;
use redis::RedisError;

/// A client for `url`. `root` is a certificate as PEM that a server may be signed by, instead of those that the system trusts; it needs the feature `redis-tls`, as
/// `rediss://` does.
pub(crate) fn client_at(url: &str, root: Option<&[u8]>) -> Result<Client, RedisError> {
    let secure = url.starts_with("rediss:") || url.starts_with("valkeys:");
    if secure && !cfg!(feature = "redis-tls") {
        return Err((redis::ErrorKind::InvalidClientConfig, "rediss:// needs the feature `redis-tls`").into());
    }
    if root.is_some() && !secure {
        return Err((redis::ErrorKind::InvalidClientConfig, "a root certificate is for rediss:// only").into());
    }
    let info = url.into_connection_info()?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    // Only the third version tells what changes, and takes commands on a connection that is subscribed.
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info = info.set_tcp_settings(tcp).set_redis_settings(redis);
    #[cfg(feature = "redis-tls")]
    if secure {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may have been faster; then there is one, too.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let certificates = redis::TlsCertificates { client_tls: None, root_cert: root.map(<[u8]>::to_vec) };
        return Client::build_with_tls(info, certificates);
    }
    Client::open(info)
}
