//! TLS: Redis and NATS behind certificates of the test's own, with a user and a password; peers of zenoh that show each other theirs.

use std::path::Path;
use std::path::PathBuf;

use actix::prelude::*;
use actix_pubsub::Builder;
use actix_pubsub::PubSub;
use actix_pubsub::cluster::ClusterEvent;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Nats;
use actix_pubsub::cluster::Redis;
use actix_pubsub::cluster::Zenoh;
use actix_pubsub::log::RedisStore;
use actix_pubsub::log::Store;
use futures::StreamExt;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::KeyPair;

use crate::cluster::Engine;
use crate::cluster::listen;
use crate::cluster::nodes;
use crate::cluster::options;
use crate::cluster::take;
use crate::ear;
use crate::servers::Server;
use crate::support::Note;
use crate::support::until;

/// An authority, and a server's certificate of it, in a folder.
struct Certificates {
    folder: PathBuf,
    root: String,
}

impl Certificates {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pubsub-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        // Another name for each: who trusts another one does not know it at all.
        authority.distinguished_name.push(rcgen::DnType::CommonName, name);
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap().signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join("root.pem"), authority.pem()).unwrap();
        std::fs::write(folder.join("server.pem"), server.pem()).unwrap();
        std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
        Self { root: authority.pem(), folder }
    }

    fn path(&self, name: &str) -> String {
        Path::new(&self.folder).join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // A folder that is left behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Secure<F>(F);

impl<F: Fn(Builder, ClusterOptions) -> Builder> Engine for Secure<F> {
    fn node(&self, options: ClusterOptions) -> Builder {
        (self.0)(PubSub::builder(), options)
    }
}

async fn it_crosses(engine: &dyn Engine) {
    crosses(&nodes(engine, 2).await).await;
}

async fn crosses(nodes: &[PubSub]) {
    let mut there = listen(&nodes[1], "t").await;
    nodes[0].broadcast("t", Note(1)).unwrap();
    assert_eq!(take(&mut there, 1).await, [1]);
}

/// Why the first try to connect failed.
async fn refusal(builder: Builder) -> String {
    let node = builder.build().unwrap();
    let mut events = node.stream::<ClusterEvent>(ClusterEvent::TOPIC).unwrap();
    match events.next().await.as_deref() {
        Some(ClusterEvent::LinkDown { reason }) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn redis_over_tls_carries_a_cluster_and_a_log_and_is_refused_without_its_root() {
    System::new().block_on(async {
        let certificates = Certificates::new("redis");
        let server = Server::redis_with_tls(&certificates.path("server.pem"), &certificates.path("server.key"), "secret");
        let (port, root) = (server.port, certificates.root.clone());
        let url = move |password: &str| format!("rediss://:{password}@localhost:{port}");
        let trusted = |password: &str| Redis::new(&url(password)).root_certificate(root.as_bytes());
        let engine = trusted("secret");
        it_crosses(&Secure(move |builder: Builder, options| builder.cluster_with(engine.clone(), options))).await;
        let store = RedisStore::builder(&url("secret")).root_certificate(root.as_bytes()).open().unwrap();
        assert_eq!(store.topics(None, 10).await.unwrap().len(), 0);
        let unknown = refusal(PubSub::builder().cluster_with(Redis::new(&url("secret")), options())).await;
        assert!(unknown.contains("UnknownIssuer") || unknown.contains("certificate"), "{unknown}");
        let wrong = refusal(PubSub::builder().cluster_with(trusted("guess"), options())).await;
        assert!(wrong.contains("AuthenticationFailed") || wrong.to_lowercase().contains("password"), "{wrong}");
        assert!(!wrong.contains("guess"), "{wrong}");
    });
}

#[test]
fn nats_over_tls_carries_a_cluster_and_is_refused_without_its_root() {
    System::new().block_on(async {
        let certificates = Certificates::new("nats");
        let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
        let server = Server::nats_with(&format!(
            "tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}\nauthorization {{ user: shop, password: secret }}\n"
        ));
        let nats = Nats::new(&format!("tls://localhost:{}", server.port)).user_and_password("shop", "secret");
        let trusted = nats.clone().root_certificates_file(certificates.path("root.pem"));
        let engine = trusted.clone();
        it_crosses(&Secure(move |builder: Builder, options| builder.cluster_with(engine.clone(), options))).await;
        let unknown = refusal(PubSub::builder().cluster_with(nats, options())).await;
        assert!(unknown.contains("UnknownIssuer") || unknown.to_lowercase().contains("certificate"), "{unknown}");
        let wrong = refusal(PubSub::builder().cluster_with(trusted.user_and_password("shop", "guess"), options())).await;
        assert!(wrong.contains("authorization"), "{wrong}");
        let missing = Nats::new(&format!("tls://localhost:{}", server.port)).root_certificates_file("/nowhere/root.pem");
        let missing = refusal(PubSub::builder().cluster_with(missing, options())).await;
        assert!(missing.contains("No such file"), "{missing}");
    });
}

#[test]
fn zenoh_over_tls_carries_a_cluster_and_leaves_out_who_is_of_another_authority_and_says_why() {
    System::new().block_on(async {
        ear::listen();
        let (ours, theirs) = (Certificates::new("zenoh-ours"), Certificates::new("zenoh-theirs"));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let seed = format!("tls/{free}");
        let peer = |root: &Certificates, own: &Certificates| {
            Zenoh::new().peer(&seed).tls(root.path("root.pem"), own.path("server.pem"), own.path("server.key"))
        };
        let join = |peer: Zenoh, listen: &str| {
            let builder = PubSub::builder().cluster_with(peer.listen(listen), options().name("zenoh-over-tls"));
            builder.message::<Note>().build().unwrap()
        };
        let nodes = [join(peer(&ours, &ours), &seed), join(peer(&ours, &ours), "tls/127.0.0.1:0")];
        until("they know each other", || nodes.iter().all(|node| node.nodes().len() == 1)).await;
        crosses(&nodes).await;
        // One who does not trust the seed, and one whom the seed does not trust.
        for (stranger, why) in [(peer(&theirs, &theirs), "UnknownIssuer"), (peer(&ours, &theirs), "UnknownCA")] {
            let before = ear::heard(&["Unable to connect", &seed]).len();
            let stranger = join(stranger, "tls/127.0.0.1:0");
            until("it has tried three times", || ear::heard(&["Unable to connect", &seed]).len() >= before + 3).await;
            let said = &ear::heard(&["Unable to connect", &seed])[before..];
            assert!(said.iter().all(|line| line.contains(why)), "{said:?}");
            assert_eq!((stranger.nodes().len(), nodes[0].nodes().len()), (0, 1));
        }
        crosses(&nodes).await;
    });
}
