//! Unsigned feeds whose directory others can write, refused when the daemon starts.
//!
//! Nothing in such a feed is signed: whoever can write there can have root run what they like. Each look at a feed asks
//! the same, so the daemon may start where the answer does not come: on a network share that hangs, it is waited for a
//! few seconds, and then the application gets no release until a look succeeds.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::settings::FeedSettings;
use crate::config::settings::Settings;
use crate::domain::name::AppName;
use crate::files::trusted::Untrusted;
use crate::files::trusted::required;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// How long all of them are waited for.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// Asks of each unsigned feed whether others than root can write there.
///
/// # Errors
/// They can.
pub(super) async fn must_be_ours(settings: &Settings) -> Result<()> {
    let dirs = settings.apps.values().filter_map(|app| match &app.feed {
        FeedSettings::Dir(dir) => Some((app.name.clone(), dir.clone())),
        FeedSettings::Signed(_) => None,
    });
    Ok(ask(dirs.collect(), required).await?)
}

async fn ask(dirs: Vec<(AppName, PathBuf)>, look: fn(&Path) -> Result<(), Untrusted>) -> Result<(), ErrorView> {
    let until = Instant::now() + LOOK_WAIT;
    let mut asked = Vec::new();
    for (app, dir) in dirs {
        let (tell, told) = oneshot::channel();
        let looked_at = dir.clone();
        // A thread of its own: where the share hangs, it must not keep the process from ending.
        let begun = std::thread::Builder::new().name("feed".to_owned()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = tell.send(look(&looked_at));
        });
        if let Err(error) = begun {
            tracing::error!(error = &error as &dyn std::error::Error, %app, "no thread can be made to look at the feed");
        }
        asked.push((app, dir, told));
    }
    for (app, dir, told) in asked {
        match tokio::time::timeout_at(until, told).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                let message =
                    format!("use feed \"{}\" of {app}: others than root can change it: {error}", dir.display());
                let hint = "only root may write to a feed that nobody signs";
                return Err(
                    ErrorView::new(ErrorKind::Usage, message).hint(error.remedy().unwrap_or_else(|| hint.into()))
                );
            }
            Ok(Err(_)) | Err(_) => tracing::error!(
                %app,
                dir = %dir.display(),
                remedy = "look whether its file system answers (ls), then `afterhours doctor`",
                "it is not known who can write to the feed: nothing is taken from it until that is known"
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> (AppName, PathBuf) {
        (name.parse().unwrap(), PathBuf::from(name))
    }

    fn look(dir: &Path) -> Result<(), Untrusted> {
        match dir.to_str() {
            Some("theirs") => Err(Untrusted::Owner { path: dir.to_owned(), owner: "anna".to_owned() }),
            Some("hangs") => loop {
                std::thread::park();
            },
            _ => Ok(()),
        }
    }

    #[tokio::test]
    async fn what_others_can_write_is_refused() {
        let error = ask(vec![named("ours"), named("theirs")], look).await.unwrap_err();
        assert!(error.message.contains("belongs to anna"), "{}", error.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_that_hangs_does_not_keep_the_daemon_from_starting() {
        ask(vec![named("hangs")], look).await.unwrap();
    }
}
