//! Does one step on the files of the small application that the tests use, so that they can kill it at any system call.
//!
//! `install_step ROOT STEP [journalled]`, with STEP one of `prepare`, `swap`, `swap-back`, `ahead`, `snapshot`, `restore`,
//! `retire`, `discard` and `empty-trash`.

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/it/install/app.rs"]
mod app;

use std::path::PathBuf;
use std::sync::Arc;

use afterhours::domain::progress::Silent;
use afterhours::domain::run::RunId;
use afterhours::install::Exchange;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let root = PathBuf::from(args.next().ok_or_else(|| anyhow::anyhow!("no root"))?);
    let step = args.next().unwrap_or_default();
    let exchange = if args.next().is_some() { Exchange::Journalled } else { Exchange::Atomic };
    let (installer, id, run) = (app::installer(&root, exchange), app::release(2), RunId(7));
    match step.as_str() {
        "prepare" => installer.prepare(&id).await?,
        "swap" => drop(installer.swap(&id).await?),
        "swap-back" => installer.swap_back(&id).await?,
        "ahead" => drop(installer.snapshot_ahead(run, Arc::new(Silent)).await?),
        "snapshot" => drop(installer.snapshot(run, Arc::new(Silent)).await?),
        "restore" => drop(installer.restore(run).await?),
        "retire" => drop(installer.retire(run, &[id]).await?),
        "discard" => drop(installer.discard(run).await?),
        "empty-trash" => drop(installer.empty_trash().await?),
        other => anyhow::bail!("no step \"{other}\""),
    }
    Ok(())
}
