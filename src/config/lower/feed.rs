//! `feed`.

use url::Url;

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::FeedInput;
use crate::config::lower::check;
use crate::config::lower::secret;
use crate::config::settings::FeedSettings;
use crate::config::settings::ProxySettings;
use crate::config::settings::SignedFeedSettings;
use crate::config::settings::TransportSettings;

/// Slower would not end: a release of a gigabyte takes a day and a half at this rate.
const BANDWIDTH_MIN: u64 = 8_000;

/// Where releases come from.
pub(super) fn feed(place: &Place, input: Option<FeedInput>) -> Result<FeedSettings, Problem> {
    let example = "say where releases come from: feed = { url = \"https://releases.example.com/NAME/\" }, or a directory with dir";
    let mut input = input.ok_or_else(|| place.missing(example))?;
    let given = [("dir", input.dir.is_some()), ("url", input.url.is_some())];
    check::exactly_one(place, &given).map_err(|problem| match problem.hint {
        Some(_) => problem,
        None => problem.hint(example),
    })?;
    let only_with_url = [
        ("root", input.root.is_some()),
        ("ca_file", input.ca_file.is_some()),
        ("proxy", input.proxy.is_some()),
        ("proxy_user", input.proxy_user.is_some()),
        ("proxy_password_file", input.proxy_password_file.is_some()),
        ("no_proxy", input.no_proxy.is_some()),
        ("licence_file", input.licence_file.is_some()),
        ("bandwidth", input.bandwidth.is_some()),
    ];
    check::only_with(place, "url", input.url.is_some(), &only_with_url)?;
    match (input.dir.take(), input.url.take()) {
        (Some(dir), _) => Ok(FeedSettings::Dir(check::path(&place.key("dir"), &dir)?)),
        (None, url) => {
            signed(place, &url.unwrap_or_default(), input).map(|signed| FeedSettings::Signed(Box::new(signed)))
        }
    }
}

fn signed(place: &Place, url: &str, input: FeedInput) -> Result<SignedFeedSettings, Problem> {
    Ok(SignedFeedSettings {
        url: base(&place.key("url"), url)?,
        root: input.root.as_deref().map(|file| check::own_file(&place.key("root"), file)).transpose()?,
        transport: transport(place, input)?,
    })
}

/// The address of the feed's folder; what is in it is named relative to that.
fn base(place: &Place, text: &str) -> Result<Url, Problem> {
    let example = "write it in full, such as https://releases.example.com/orders/";
    let mut url =
        Url::parse(text).map_err(|error| place.wrong(format!("\"{text}\" is no URL: {error}")).hint(example))?;
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("\"{}\" is not a scheme that a feed can be fetched by", url.scheme());
        return Err(place.wrong(message).hint(example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(place.wrong("a user or password does not belong into the URL").hint("use `licence_file`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(place.wrong(format!("\"{text}\" says more than a folder")).hint(example));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn transport(place: &Place, input: FeedInput) -> Result<TransportSettings, Problem> {
    let bandwidth = match input.bandwidth {
        Some(slow) if slow < BANDWIDTH_MIN => {
            let message = format!("{slow} bytes a second is too slow to fetch anything");
            return Err(place.key("bandwidth").wrong(message).hint(format!("give at least {BANDWIDTH_MIN}")));
        }
        bandwidth => bandwidth,
    };
    let licence_file = input.licence_file.as_deref().map(|file| check::own_file(&place.key("licence_file"), file));
    let ca_file = input.ca_file.as_deref().map(|file| secret::ca_file(&place.key("ca_file"), file, "feed's server"));
    Ok(TransportSettings {
        ca_file: ca_file.transpose()?,
        licence_file: licence_file.transpose()?,
        bytes_per_second_max: bandwidth,
        proxy: proxy(place, input)?,
    })
}

fn proxy(place: &Place, input: FeedInput) -> Result<ProxySettings, Problem> {
    let through = input.proxy.as_deref().filter(|proxy| *proxy != "none");
    let beside = [
        ("proxy_user", input.proxy_user.is_some()),
        ("proxy_password_file", input.proxy_password_file.is_some()),
        ("no_proxy", input.no_proxy.is_some()),
    ];
    check::only_with(place, "proxy = \"http://…\"", through.is_some(), &beside)?;
    let Some(text) = through else {
        return Ok(if input.proxy.is_some() { ProxySettings::Direct } else { ProxySettings::Environment });
    };
    let url = proxy_url(&place.key("proxy"), text)?;
    let login = match (input.proxy_user, input.proxy_password_file) {
        (Some(user), Some(file)) => {
            let password = secret::password(&place.key("proxy_password_file"), &file)?;
            Some((check::text(&place.key("proxy_user"), user)?, password))
        }
        (Some(_), None) => return Err(place.key("proxy_password_file").missing("`proxy_user` needs a password")),
        (None, Some(_)) => return Err(place.key("proxy_user").missing("`proxy_password_file` needs a user")),
        (None, None) => None,
    };
    let mut except = Vec::new();
    for (index, host) in input.no_proxy.unwrap_or_default().into_iter().enumerate() {
        except.push(check::text(&place.key("no_proxy").index(index), host)?);
    }
    Ok(ProxySettings::Through { url, login, except })
}

fn proxy_url(place: &Place, text: &str) -> Result<Url, Problem> {
    let example = "write it as http://proxy.example.com:3128, or \"none\" for no proxy whatever the environment says";
    let url = Url::parse(text).map_err(|error| place.wrong(format!("\"{text}\" is no URL: {error}")).hint(example))?;
    if url.scheme() != "http" {
        return Err(place.wrong(format!("\"{}\" is not a kind of proxy we can use", url.scheme())).hint(example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(place
            .wrong("a user or password does not belong into the URL")
            .hint("use `proxy_user` and `proxy_password_file`"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(place.wrong(format!("\"{text}\" says more than a server and a port")).hint(example));
    }
    Ok(url)
}
