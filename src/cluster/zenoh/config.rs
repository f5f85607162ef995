//! Config: our settings as zenoh's. Knows no session.

use ::zenoh::Config;
use serde_json::Value;
use serde_json::json;

use crate::cluster::transport::Identity;
use crate::cluster::transport::TransportError;
use crate::cluster::zenoh::Zenoh;
use crate::cluster::zenoh::endpoint::Endpoint;

/// `listen` with the ports to take. Its own endpoint is not dialled.
pub(super) fn config(
    settings: &Zenoh,
    identity: &Identity,
    listen: &[Endpoint],
    peers: &[Endpoint],
) -> Result<Config, TransportError> {
    let texts = |endpoints: &[Endpoint]| endpoints.iter().map(|endpoint| endpoint.text.clone()).collect::<Vec<_>>();
    let listen = texts(listen);
    let peers: Vec<_> = texts(peers).into_iter().filter(|peer| !listen.contains(peer)).collect();
    let lease = u64::try_from(identity.failure_timeout.as_millis()).unwrap_or(u64::MAX).clamp(LEASE_MS_MIN, LEASE_MS_MAX);
    let mut keys: Vec<(&str, Value)> = vec![
        ("mode", json!("peer")),
        ("listen/endpoints", json!(listen)),
        ("listen/timeout_ms", json!(0)),
        ("listen/exit_on_failure", json!(true)),
        ("connect/endpoints", json!(peers)),
        ("connect/timeout_ms", json!(-1)),
        ("connect/exit_on_failure", json!(false)),
        ("connect/retry", json!({ "period_init_ms": 100, "period_max_ms": 1_000, "period_increase_factor": 2.0 })),
        ("scouting/multicast/enabled", json!(settings.multicast)),
        ("scouting/gossip/enabled", json!(true)),
        ("transport/unicast/open_timeout", json!(lease)),
        ("transport/unicast/accept_timeout", json!(lease)),
        ("transport/unicast/lowlatency", json!(false)),
        ("transport/link/tx/lease", json!(lease)),
        ("transport/link/tx/keep_alive", json!(4)),
        // Zenoh allows 16 at most: batches of 64 KiB, made when they are needed.
        ("transport/link/tx/queue/size/data", json!(16)),
        ("transport/link/tx/queue/size/control", json!(16)),
        ("transport/link/tx/queue/congestion_control/drop/wait_before_drop", json!(10_000)),
        ("transport/link/tx/queue/congestion_control/drop/max_wait_before_drop_fragments", json!(50_000)),
        // Declarations are never dropped: a peer that does not take one for so long is cut off and dialled again.
        ("transport/link/tx/queue/congestion_control/block/wait_before_close", json!(1_000_000)),
        ("transport/link/tx/queue/batching/enabled", json!(true)),
        // Room for zenoh's own head, and for a peer with a higher limit: its frames are refused above, by their size.
        ("transport/link/rx/max_message_size", json!(identity.frame_bytes_max.saturating_mul(2).max(16 << 20))),
    ];
    if let Some(credentials) = &settings.credentials {
        keys.push(("transport/auth/usrpwd/user", json!(credentials.user)));
        keys.push(("transport/auth/usrpwd/password", json!(credentials.password)));
        keys.push(("transport/auth/usrpwd/dictionary_file", json!(credentials.users)));
    }
    #[cfg(feature = "zenoh-tls")]
    if let Some(tls) = &settings.tls {
        keys.push(("transport/link/tls/root_ca_certificate", json!(tls.root)));
        keys.push(("transport/link/tls/listen_certificate", json!(tls.certificate)));
        keys.push(("transport/link/tls/listen_private_key", json!(tls.key)));
        keys.push(("transport/link/tls/connect_certificate", json!(tls.certificate)));
        keys.push(("transport/link/tls/connect_private_key", json!(tls.key)));
        keys.push(("transport/link/tls/enable_mtls", json!(true)));
    }
    let mut config = Config::default();
    for (key, value) in keys {
        config
            .insert_json5(key, &value.to_string())
            .map_err(|error| TransportError::new("setting up zenoh", format!("{key}: {error}")))?;
    }
    Ok(config)
}

/// Below that a pause of the scheduler would look like a death.
const LEASE_MS_MIN: u64 = 500;
/// What zenoh has by default; longer is never better.
const LEASE_MS_MAX: u64 = 10_000;
