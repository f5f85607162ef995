//! Browser: a chromedriver of one's own, Chromium pages, and what people do on those of the chat. Knows no server.

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix_web::rt::time::sleep;
use fantoccini::Client;
use fantoccini::ClientBuilder;
use fantoccini::Locator;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::Value;
use serde_json::json;

use crate::common::DEADLINE;
use crate::common::POLL_INTERVAL;
use crate::common::Process;
use crate::common::read_line_with;

const INSTALL: &str = "This test needs Chromium and its driver: apt-get install chromium chromium-driver";

/// Browsers are heavy: the tests with pages run one after the other, also when each test is a process of its own.
pub(crate) fn alone() -> File {
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// A `chromedriver` on a free port, and the folder of the profiles of its browsers.
pub(crate) struct Driver {
    process: Process,
    url: String,
    profiles: PathBuf,
}

impl Driver {
    pub(crate) fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("chromium-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let profiles = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&profiles).unwrap();
        let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = Process(started.unwrap_or_else(|error| panic!("chromedriver does not start: {error}. {INSTALL}")));
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let port = read_line_with(&mut stdout, "started successfully on port ").expect("chromedriver says its port");
        let port = port.trim_end_matches('.');
        // What nobody reads would stop it in the end.
        std::thread::spawn(move || stdout.lines().count());
        Self { process, url: format!("http://127.0.0.1:{port}"), profiles }
    }

    /// A Chromium of its own with this page.
    pub(crate) async fn open(&self, url: &str) -> Client {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let profile = self.profiles.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let profile = format!("--user-data-dir={}", profile.display());
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // A browser ends when the other end of this pipe is gone: none is left, however the driver ends.
            "--remote-debugging-pipe",
            "--window-size=1200,800",
            &profile,
        ];
        let options = json!({ "goog:chromeOptions": { "args": flags } });
        let capabilities = options.as_object().cloned().unwrap_or_default();
        let connected = ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&self.url).await;
        let client = connected.unwrap_or_else(|error| panic!("chromium does not start: {error}. {INSTALL}"));
        client.goto(url).await.unwrap();
        client
    }

    /// What the driver itself has no word for: a screen of another size, a preference for the dark.
    pub(crate) async fn devtools(&self, client: &Client, command: &str, params: Value) {
        let session = client.session_id().await.unwrap().expect("a session");
        let address = self.url.trim_start_matches("http://");
        let body = json!({ "cmd": command, "params": params }).to_string();
        let mut socket = TcpStream::connect(address).unwrap();
        let head = format!("POST /session/{session}/goog/cdp/execute HTTP/1.1\r\nHost: {address}");
        write!(socket, "{head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = String::new();
        // It keeps the connection: the first line is all there is to know.
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{command}: {answer}");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        // After a panic the browsers end only now, and write into their profiles until they have.
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir_all(&self.profiles).is_err() && self.profiles.exists() && Instant::now() < until {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// One Chromium with a page of the chat.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) client: Client,
}

impl Page {
    /// In the room `lobby`.
    pub(crate) async fn open(driver: &Driver, port: u16, name: &str) -> Self {
        let name = name.replace('<', "%3C").replace('>', "%3E");
        Self { client: driver.open(&format!("http://127.0.0.1:{port}/?room=lobby&name={name}")).await }
    }

    pub(crate) async fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)";
        let texts = self.client.execute(script, vec![json!(selector)]).await.unwrap();
        serde_json::from_value(texts).unwrap()
    }

    /// Waits until the texts of the elements of `selector` are these.
    pub(crate) async fn wait_for(&self, selector: &str, wanted: &[&str]) {
        let until = Instant::now() + DEADLINE;
        loop {
            let texts = self.texts(selector).await;
            if texts == wanted {
                return;
            }
            assert!(Instant::now() < until, "{selector} is {texts:?} after {DEADLINE:?}, it should be {wanted:?}");
            sleep(POLL_INTERVAL).await;
        }
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.client.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    /// Short texts are typed; long ones are pasted, as people do.
    pub(crate) async fn say(&self, text: &str) {
        let field = self.client.find(Locator::Css("#text")).await.unwrap();
        if text.len() < 100 {
            field.send_keys(text).await.unwrap();
        } else {
            let script = "const [field, text] = arguments; field.value = text; field.dispatchEvent(new Event('input'))";
            self.client.execute(script, vec![serde_json::to_value(&field).unwrap(), json!(text)]).await.unwrap();
        }
        self.click("#say button").await;
    }
}
