//! Where the reports go: a real mail server that keeps what it took.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;

/// A mail as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) to: Vec<String>,
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) content: String,
}

/// A running mail server.
pub(crate) struct Sink {
    _child: Child,
    taken: Arc<Mutex<Vec<Mail>>>,
    pub(crate) port: u16,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with arguments of its own.
    pub(crate) async fn with(args: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/smtp.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("python3 (Debian package: python3)");
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let hello = said.next_line().await.unwrap().expect("aiosmtpd (Debian package: python3-aiosmtpd)");
        let hello: Value = serde_json::from_str(&hello).unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok(Some(line)) = said.next_line().await {
                into.lock().unwrap().push(mail(&serde_json::from_str(&line).unwrap()));
            }
        });
        Self { _child: child, taken, port: hello["port"].as_u64().unwrap().try_into().unwrap() }
    }

    /// Everything it took so far.
    pub(crate) fn taken(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().clone()
    }
}

fn mail(taken: &Value) -> Mail {
    let content = taken["content"].as_str().unwrap().replace("\r\n", "\n");
    let head = content.split("\n\n").next().unwrap().replace("\n ", " ");
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    Mail {
        to: serde_json::from_value(taken["to"].clone()).unwrap(),
        id: header("Message-ID"),
        subject: header("Subject"),
        // What quoted-printable breaks and spells out is put together again, as far as the tests look.
        content: content.replace("=\n", "").replace("=3D", "="),
    }
}
