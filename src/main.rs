//! The `afterhours` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First thing: whoever asks rustls before there is a provider would end the process.
    // It fails only where one is installed already, and then that one is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    afterhours::cli::run(std::env::args_os())
}
