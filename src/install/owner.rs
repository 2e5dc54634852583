//! Who a tree belongs to: `user:group` from the configuration, by name or by number.

use crate::files::account::Account;
use crate::files::account::find_group;
use crate::install::error::InstallError;

/// User and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Looks `user:group`, `user` or `user:` up; without a group it is the user's own.
pub(super) fn resolve(text: &str) -> Result<Owner, InstallError> {
    let unknown = || InstallError::UnknownOwner { owner: text.to_owned() };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let account = Account::find(user).ok_or_else(unknown)?;
    let gid = match group {
        // A number without a name has no group that could be known.
        "" if account.is_known() => account.gid,
        "" => return Err(unknown()),
        group => find_group(group).ok_or_else(unknown)?,
    };
    Ok(Owner { uid: account.uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(resolve("root:root").unwrap(), Owner { uid: 0, gid: 0 });
        assert_eq!(resolve("root").unwrap(), Owner { uid: 0, gid: 0 });
        assert_eq!(resolve("1234:4321").unwrap(), Owner { uid: 1234, gid: 4321 });
        for bad in ["nobody-of-that-name:root", "root:nobody-of-that-name", "", "4711"] {
            assert!(resolve(bad).is_err(), "{bad}");
        }
    }
}
