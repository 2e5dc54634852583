//! The part of systemd's D-Bus interface that is used here.
//!
//! A connection lives for one operation: a bus that was restarted in between is never met stale.
//! Properties are read fresh every time.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use zbus::Connection;
use zbus::ObjectPath;
use zbus::OwnedObjectPath;
use zbus::OwnedVariant;
use zbus::Variant;
use zbus::connection::Builder;
use zbus::proxy;
use zbus::proxy::CacheProperties;

use crate::service::error::ServiceError;
use crate::service::plan::Facts;
use crate::service::plan::RELATIONS;

/// How long one call may take; a job's own time is not in it.
const CALL_WAIT: Duration = Duration::from_secs(25);

/// Which bus systemd is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bus {
    /// The system's, as everybody finds it.
    System,
    /// One at a D-Bus address.
    Address(String),
}

impl Bus {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Connection, ServiceError> {
        let builder = match self {
            Self::System => Builder::system(),
            Self::Address(address) => Builder::address(address.as_str()),
        };
        let connecting = builder.method_timeout(CALL_WAIT).build();
        match tokio::time::timeout(CALL_WAIT, connecting).await {
            Ok(connected) => connected.map_err(ServiceError::Bus),
            Err(_) => Err(ServiceError::Bus(zbus::Error::Failure("no answer".to_owned()))),
        }
    }
}

/// Tells which call on which unit went wrong, and whether for want of rights.
pub(crate) async fn call<T>(
    call: &'static str,
    unit: &str,
    answer: impl Future<Output = zbus::Result<T>>,
) -> Result<T, ServiceError> {
    answer.await.map_err(|source| {
        let unit = unit.to_owned();
        match error_name(&source) {
            Some(
                "org.freedesktop.DBus.Error.AccessDenied"
                | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
            ) => ServiceError::Denied { call, unit, source },
            Some("org.freedesktop.systemd1.NoSuchUnit") => ServiceError::NoUnit { unit },
            _ => ServiceError::Systemd { call, unit, source },
        }
    })
}

fn error_name(error: &zbus::Error) -> Option<&str> {
    match error {
        zbus::Error::MethodError(name, ..) => Some(name.as_str()),
        _ => None,
    }
}

/// systemd itself.
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(crate) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn get_unit_processes(&self, name: &str) -> zbus::Result<Vec<(String, u32, String)>>;
    fn set_unit_properties(&self, name: &str, runtime: bool, properties: &[(&str, Variant<'_>)]) -> zbus::Result<()>;

    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: ObjectPath<'_>, unit: String, result: String) -> zbus::Result<()>;
}

/// What every unit has.
#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
pub(crate) trait Unit {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn condition_result(&self) -> zbus::Result<bool>;
    #[zbus(property)]
    fn conditions(&self) -> zbus::Result<Vec<(String, bool, bool, String, i32)>>;
}

/// What only services have.
#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
pub(crate) trait ServiceUnit {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
    #[zbus(property)]
    fn result(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn kill_mode(&self) -> zbus::Result<String>;
    #[zbus(property, name = "TimeoutStopUSec")]
    fn timeout_stop_usec(&self) -> zbus::Result<u64>;
    #[zbus(property, name = "Type")]
    fn kind(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn remain_after_exit(&self) -> zbus::Result<bool>;
}

/// What only sockets have.
#[proxy(interface = "org.freedesktop.systemd1.Socket", default_service = "org.freedesktop.systemd1")]
pub(crate) trait SocketUnit {
    #[zbus(property)]
    fn accept(&self) -> zbus::Result<bool>;
}

/// All properties at once; an older systemd knows fewer.
#[proxy(interface = "org.freedesktop.DBus.Properties", default_service = "org.freedesktop.systemd1")]
pub(crate) trait Properties {
    fn get_all(&self, interface: &str) -> zbus::Result<HashMap<String, OwnedVariant>>;
}

/// The unit at `path`, its properties never cached.
pub(crate) async fn unit_at<'a>(connection: &Connection, path: &OwnedObjectPath) -> zbus::Result<UnitProxy<'a>> {
    UnitProxy::builder(connection).path(path.clone()).cache_properties(CacheProperties::No).build().await
}

/// The same unit as a service.
pub(crate) async fn service_at<'a>(
    connection: &Connection,
    path: &OwnedObjectPath,
) -> zbus::Result<ServiceUnitProxy<'a>> {
    ServiceUnitProxy::builder(connection).path(path.clone()).cache_properties(CacheProperties::No).build().await
}

/// What a plan needs to know of the unit at `path`.
pub(crate) async fn facts_of(connection: &Connection, path: &OwnedObjectPath) -> zbus::Result<Facts> {
    let properties = PropertiesProxy::builder(connection).path(path.clone());
    let properties = properties.cache_properties(CacheProperties::No).build().await?;
    let mut all = properties.get_all("org.freedesktop.systemd1.Unit").await?;
    let mut text = |name: &str| all.remove(name).and_then(|value| String::try_from(value).ok()).unwrap_or_default();
    let mut facts =
        Facts { name: text("Id"), load: text("LoadState"), active: text("ActiveState"), ..Facts::default() };
    for relation in RELATIONS {
        if let Some(names) = all.remove(relation).and_then(|value| Vec::<String>::try_from(value).ok()) {
            facts.links.insert(relation, names);
        }
    }
    if facts.name.ends_with(".service") && facts.active == "activating" {
        let service = service_at(connection, path).await?;
        facts.is_at_once = service.kind().await? == "oneshot" && !service.remain_after_exit().await?;
    }
    if facts.name.ends_with(".socket") {
        let socket = SocketUnitProxy::builder(connection).path(path.clone());
        facts.accepts = socket.cache_properties(CacheProperties::No).build().await?.accept().await?;
    }
    Ok(facts)
}
