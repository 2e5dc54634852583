//! Who a tree belongs to: `user:group` from the configuration, by name or by number.

use std::fs;

use crate::domain::span::Span;
use crate::exec::Exec;
use crate::install::error::InstallError;

/// User and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Looks `user:group`, `user` or `user:` up; without a group it is the user's own.
pub(super) async fn resolve(text: &str) -> Result<Owner, InstallError> {
    let unknown = || InstallError::UnknownOwner { owner: text.to_owned() };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let account = find("passwd", user).await;
    let uid = match (&account, user.parse()) {
        (Some(fields), _) => fields.get(2).and_then(|uid| uid.parse().ok()),
        (None, Ok(uid)) => Some(uid),
        (None, Err(_)) => None,
    };
    let gid = if group.is_empty() {
        account.and_then(|fields| fields.get(3).and_then(|gid| gid.parse().ok()))
    } else {
        match (find("group", group).await, group.parse()) {
            (Some(fields), _) => fields.get(2).and_then(|gid| gid.parse().ok()),
            (None, Ok(gid)) => Some(gid),
            (None, Err(_)) => None,
        }
    };
    Ok(Owner { uid: uid.ok_or_else(unknown)?, gid: gid.ok_or_else(unknown)? })
}

/// The fields of an entry of a system database: from its file, else from wherever the system gets it (LDAP, systemd).
async fn find(database: &str, name: &str) -> Option<Vec<String>> {
    let pick = |text: &str| {
        let lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        lines.into_iter().find(|fields| fields.first().is_some_and(|first| first == name))
    };
    let local = fs::read_to_string(format!("/etc/{database}")).ok().and_then(|text| pick(&text));
    match local {
        Some(fields) => Some(fields),
        None if name.parse::<u32>().is_ok() => None,
        None => {
            let argv = ["getent".to_owned(), database.to_owned(), name.to_owned()];
            let output = Exec::new(&argv, Span::secs(10)).run().await.ok()?;
            pick(&output.stdout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_numbers() {
        assert_eq!(resolve("root:root").await.unwrap(), Owner { uid: 0, gid: 0 });
        assert_eq!(resolve("root").await.unwrap(), Owner { uid: 0, gid: 0 });
        assert_eq!(resolve("1234:4321").await.unwrap(), Owner { uid: 1234, gid: 4321 });
        for bad in ["nobody-of-that-name:root", "root:nobody-of-that-name", "", "4711"] {
            assert!(resolve(bad).await.is_err(), "{bad}");
        }
    }
}
