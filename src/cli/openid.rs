//! Flags for sign-in by OpenID Connect.

use std::path::PathBuf;

use ureq::http::Uri;
use xene_schemas::access::Role;

use super::{Error, dirs};
use crate::http::openid::Settings;

/// Who says who somebody is.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Sign-in by OpenID Connect")]
pub struct OpenIdArgs {
    /// The provider, as it calls itself: `https://id.example/realms/team`.
    #[arg(long, value_name = "URL", requires_all = ["oidc_client_id", "oidc_role", "public_url"])]
    pub oidc_issuer: Option<String>,

    /// What the provider calls this controller. It must let it come back to PUBLIC-URL/sign-in/openid/callback.
    #[arg(long, value_name = "ID", requires = "oidc_issuer")]
    pub oidc_client_id: Option<String>,

    /// File with the client's secret [default: none, for a public client].
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// Which role a group gives: `operators=operator`; `*` is everybody whom the provider signs in. May be repeated, or
    /// several with `;` between them; the highest counts.
    #[arg(long, value_name = "GROUP=ROLE", value_delimiter = ';', value_parser = group_role, requires = "oidc_issuer")]
    pub oidc_role: Vec<(String, Role)>,

    /// What to ask for beside `openid`.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_value = "profile,email")]
    pub oidc_scope: Vec<String>,

    /// The claim that people are named by.
    #[arg(long, value_name = "CLAIM", default_value = "email")]
    pub oidc_name_claim: String,

    /// The claim that lists groups.
    #[arg(long, value_name = "CLAIM", default_value = "groups")]
    pub oidc_groups_claim: String,

    /// Certificates to trust the provider's by, PEM [default: the system's].
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    pub oidc_ca: Option<PathBuf>,
}

fn group_role(text: &str) -> Result<(String, Role), String> {
    let (group, role) = text.rsplit_once('=').ok_or("expected GROUP=ROLE, such as operators=operator")?;
    if group.is_empty() {
        return Err("expected GROUP=ROLE, with a group's name or *".to_owned());
    }
    let role = role.parse().map_err(|error: xene_schemas::access::NoRole| error.to_string())?;
    Ok((group.to_owned(), role))
}

/// Where browsers find this controller: a scheme and a host, perhaps a port.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let expected = "expected something like https://xene.example, without a path";
    let uri: Uri = text.parse().map_err(|_| expected)?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(expected)?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(expected)?;
    let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
    if has_path { Err(expected.to_owned()) } else { Ok(format!("{scheme}://{authority}")) }
}

/// A server's address.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let uri: Option<Uri> = text.parse().ok();
    let is_one = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
    };
    match uri.filter(is_one) {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected something like http://127.0.0.1:4318, without a query or a user".to_owned()),
    }
}

/// The host in a URL, without its port.
pub(super) fn host_of(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

impl OpenIdArgs {
    /// Checks what no single flag can tell.
    ///
    /// # Errors
    /// If the provider is reached in the clear, and not on this machine.
    pub fn check(&self) -> Result<(), Error> {
        let Some(issuer) = &self.oidc_issuer else { return Ok(()) };
        let is_url = issuer.parse::<Uri>().is_ok_and(|uri| uri.host().is_some() && uri.query().is_none());
        let is_local = host_of(issuer).is_some_and(|host| crate::outgoing::is_local(&host));
        if is_url && (issuer.starts_with("https://") || issuer.starts_with("http://") && is_local) {
            return Ok(());
        }
        Err(Error::usage_with_hint(
            format!("--oidc-issuer {issuer:?} can't be trusted"),
            "expected a URL with https, as the provider's openid-configuration has it as `issuer`",
        ))
    }

    /// As the server takes them.
    pub(super) fn settings(&self, public_url: Option<&str>) -> Option<Settings> {
        Some(Settings {
            issuer: self.oidc_issuer.clone()?,
            client: self.oidc_client_id.clone()?,
            secret: self.oidc_client_secret_file.clone(),
            public_url: public_url?.to_owned(),
            scopes: self.oidc_scope.clone(),
            name_claim: self.oidc_name_claim.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            roles: self.oidc_role.clone(),
            ca: self.oidc_ca.clone().or_else(dirs::system_certificates),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_gives_a_role() {
        assert_eq!(group_role("ops=admin"), Ok(("ops".to_owned(), Role::Admin)));
        assert_eq!(group_role("cn=ops=viewer"), Ok(("cn=ops".to_owned(), Role::Viewer)));
        assert_eq!(group_role("*=viewer"), Ok(("*".to_owned(), Role::Viewer)));
        for wrong in ["ops", "=admin", "ops=root", "ops="] {
            assert!(group_role(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_public_url_has_no_path() {
        assert_eq!(public_url("https://xene.example/"), Ok("https://xene.example".to_owned()));
        assert_eq!(public_url("http://[::1]:7420"), Ok("http://[::1]:7420".to_owned()));
        assert_eq!(host_of("http://[::1]:7420").as_deref(), Some("::1"));
        for wrong in ["xene.example", "ftp://a", "https://a/b", "https://u@a", "https://a?b", "/", ""] {
            assert!(public_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_provider_is_reached_by_tls_or_on_this_machine() {
        let check = |issuer: &str| OpenIdArgs { oidc_issuer: Some(issuer.to_owned()), ..OpenIdArgs::default() }.check();
        for right in ["https://id.example/realms/team", "http://127.0.0.1:5556/dex", "http://localhost:8080"] {
            assert!(check(right).is_ok(), "{right}");
        }
        for wrong in ["http://id.example", "id.example", "https://", "https://id.example?x=y"] {
            assert_eq!(check(wrong).unwrap_err().status(), 2, "{wrong}");
        }
    }
}
