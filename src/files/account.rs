//! Users and groups of this machine, as the system's own databases know them (files, LDAP, systemd).

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

use nix::unistd;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;

/// One user, with everything that a process of theirs gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's name; the number in digits where the system knows no name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// All groups, the own one among them.
    pub groups: Vec<u32>,
    /// The home directory; `/` where the system knows none.
    pub home: PathBuf,
}

impl Account {
    /// The user with this number. A number without a name is a user, too: one without further groups.
    pub fn of_uid(uid: u32) -> Self {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Self::from(user),
            _ => Self { name: uid.to_string(), uid, gid: uid, groups: vec![uid], home: PathBuf::from("/") },
        }
    }

    /// The user called `name`, or with the number that `name` spells; nothing where there is none.
    pub fn find(name: &str) -> Option<Self> {
        match User::from_name(name) {
            Ok(Some(user)) => Some(Self::from(user)),
            _ => name.parse().ok().map(Self::of_uid),
        }
    }

    /// The user of this process.
    pub fn own() -> Self {
        Self::of_uid(rustix::process::geteuid().as_raw())
    }

    /// Whether the system knows a user with this number.
    pub fn is_known(&self) -> bool {
        self.name != self.uid.to_string()
    }

    /// Whether the user is in the group called `group`.
    pub fn is_member(&self, group: &str) -> bool {
        find_group(group).is_some_and(|gid| self.groups.contains(&gid))
    }

    /// Whether this is the superuser.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        let gid = user.gid.as_raw();
        let name = CString::new(user.name.as_bytes()).unwrap_or_default();
        let groups = unistd::getgrouplist(&name, user.gid)
            .map_or_else(|_| vec![gid], |groups| groups.into_iter().map(Gid::as_raw).collect());
        Self { name: user.name, uid: user.uid.as_raw(), gid, groups, home: user.dir }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The name of the user with this number; the number in digits where there is none.
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// The name of the group with this number; the number in digits where there is none.
pub fn group_name(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    }
}

/// The number of the group called `name`, or the number that `name` spells; nothing where there is none.
pub fn find_group(name: &str) -> Option<u32> {
    match Group::from_name(name) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        _ => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.uid, root.gid, root.home.to_str()), (0, 0, Some("/root")));
        assert_eq!(Account::find("0").unwrap(), root);
        assert_eq!(Account::find("nobody-of-that-name"), None);
        let nameless = Account::of_uid(4_000_000);
        assert_eq!(
            (nameless.name.as_str(), nameless.gid, nameless.groups.as_slice()),
            ("4000000", 4_000_000, &[4_000_000][..])
        );
    }
}
