//! Committed text that is made from the code: a test compares it, and `UPDATE_DOCS=1` writes it anew.

use std::path::Path;

/// Compares the whole file at `path`, from the root of the repository, with `made`.
#[track_caller]
pub(crate) fn assert_file(path: &str, made: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if updating() {
        fs_err::write(&file, made).unwrap();
    }
    let committed = fs_err::read_to_string(&file).unwrap_or_default();
    assert!(committed == made, "{path} is not what the code says; UPDATE_DOCS=1 writes it anew:\n{made}");
}

/// Compares what stands between `<!-- generated: NAME -->` and the next `<!-- end -->` with `made`.
#[track_caller]
pub(crate) fn assert_region(path: &str, name: &str, made: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs_err::read_to_string(&file).unwrap();
    let begin = format!("<!-- generated: {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{path} has no region {name}"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap_or_else(|| panic!("{path}: {name} has no end"));
    assert_file(path, &format!("{before}{begin}{made}<!-- end -->{after}"));
}

#[expect(clippy::disallowed_methods, reason = "a switch of the tests, and no setting of the product")]
fn updating() -> bool {
    std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1")
}
