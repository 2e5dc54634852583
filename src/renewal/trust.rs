//! Whom we believe about a new Afterhours.

use std::sync::Arc;

use crate::files::small::read_small;
use crate::files::trusted::trusted_file;
use crate::renewal::Renewal;
use crate::renewal::error::At;
use crate::renewal::error::RenewalError;

/// Who vouches for a new Afterhours: the root of trust of its makers. A build may bring its own, as the text of a `root.json`.
const COMPILED_ROOT: &[u8] = match option_env!("AFTERHOURS_UPDATER_ROOT") {
    Some(text) => text.as_bytes(),
    None => include_bytes!("../../config/updater-root.json"),
};
/// The largest root.
const ROOT_BYTES_MAX: u64 = 512 * 1024;

impl Renewal {
    /// The root of trust of Afterhours itself: compiled in, or the one that the administrator names.
    ///
    /// # Errors
    /// The named one cannot be read, or others could change it.
    pub fn root(&self) -> Result<Arc<[u8]>, RenewalError> {
        let Some(path) = &self.root else { return Ok(Arc::from(COMPILED_ROOT)) };
        let untrusted = |source| RenewalError::UntrustedRoot { path: path.clone(), source: Box::new(source) };
        let file = trusted_file(path).map_err(untrusted)?;
        let bytes = read_small(file.path(), ROOT_BYTES_MAX).map_err(std::io::Error::from).at("read", path)?;
        Ok(Arc::from(bytes.unwrap_or_default()))
    }

    /// The same, for looking for a newer Afterhours; nothing where that is off, or where there is no root to rely on.
    /// Without one Afterhours stays as it is, and everything else goes on.
    ///
    /// # Errors
    /// Others could change the named one.
    pub fn root_to_look_by(&self) -> Result<Option<Arc<[u8]>>, RenewalError> {
        if !self.on {
            return Ok(None);
        }
        match self.root() {
            Err(error) if !error.is_hostile() => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    remedy = error.hint(),
                    "Afterhours does not update itself: it has nobody to believe"
                );
                Ok(None)
            }
            root => root.map(Some),
        }
    }
}
