//! Everything about a run that support needs, in one file, without secrets.
//!
//! What goes in is listed, not what stays out: the run as it is shown, its log, what was mailed about
//! it (not to whom), findings, the versions of this program and its system. The configuration goes in only as the shape of its keys.

use std::io::Write;

use crate::control::Control;
use crate::control::error::ControlError;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::run::RunId;
use crate::domain::step::Step;
use crate::jobs::preflight::findings;
use crate::jobs::select::Wish;

/// The level at which a bundle is compressed; it is small.
const LEVEL: i32 = 9;

impl Control {
    /// A `.tar.zst` with all that is known of a run.
    ///
    /// # Errors
    /// There is no such run, or it cannot be packed.
    pub async fn bundle(&self, run: RunId) -> Result<Vec<u8>, ControlError> {
        let mut view = self.run_view(run).await?;
        let mut events = self.store.events(run, 0).await?;
        // Who is told is nobody's concern but the site's.
        view.mail.clear();
        for step in view.steps.iter_mut().filter(|step| step.step == Step::Report) {
            step.message = None;
        }
        for logged in &mut events {
            if let RunEvent::Queued { order } = &mut logged.event {
                order.mail.clear();
            }
        }
        let chain = self.store.verify_chain().await?;
        let mails = self.store.mails_of_run(run).await?;
        let found = match self.kit(&view.app) {
            Ok(kit) => findings(kit, &self.store, self.now(), &Wish::newest()).await,
            Err(_) => Vec::new(),
        };
        let system = rustix::system::uname();
        let about = serde_json::json!({
            "afterhours": env!("CARGO_PKG_VERSION"),
            "run": run,
            "made_at": self.now(),
            "kernel": system.release().to_string_lossy(),
            "machine": system.machine().to_string_lossy(),
            "chain": format!("{chain:?}"),
        });
        let files = [
            ("about.json", serde_json::to_vec_pretty(&about)),
            ("run.json", serde_json::to_vec_pretty(&view)),
            ("events.json", serde_json::to_vec_pretty(&events)),
            ("findings.json", serde_json::to_vec_pretty(&found)),
        ];
        let mails = (1..).zip(mails).map(|(number, mail)| {
            (format!("mail-{number}.txt"), Ok(format!("Subject: {}\n\n{}", mail.subject, mail.text).into_bytes()))
        });
        let files = files.into_iter().map(|(name, json)| (name.to_owned(), json)).chain(mails);
        let pack = || -> std::io::Result<Vec<u8>> {
            let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL)?);
            for (name, content) in files {
                let content = content?;
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                header.set_mode(0o600);
                header.set_mtime(self.now().timestamp().unsigned_abs());
                tar.append_data(&mut header, format!("afterhours-run-{run}/{name}"), content.as_slice())?;
            }
            let mut encoder = tar.into_inner()?;
            encoder.flush()?;
            encoder.finish()
        };
        pack().map_err(|error| {
            ControlError::Failed(Failure::new(format!("pack the bundle of run {run}")).because(error.to_string()))
        })
    }
}
