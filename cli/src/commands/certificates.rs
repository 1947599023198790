//! The cluster's authority, join tokens, and certificates.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_proto::v1;
use berth_tls::{Authority, Dialler, Joined, TlsError, lifetime_ms, now_ms};
use berth_types::{CertificateView, Identity, Role};
use serde_json::{Value, json};

use super::jobs::note;
use super::{Context, Outcome};
use crate::args::{CertAction, Init, Join, TokenAction, TokenCreate};
use crate::failure::Failure;
use crate::show::time::{rfc3339, span};
use crate::show::{Screen, View, facts};

/// Where daemons keep their certificate if nothing is said.
const DAEMON_DIR: &str = "/etc/berth/tls";

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Call(error) => Failure::Api(error),
            TlsError::Connect { address, why } => Failure::Unreachable {
                addresses: vec![address],
                last: why,
            },
            TlsError::Token(_) => {
                let hint = "ask an admin for a new one: `berth token create`";
                Failure::usage(error.to_string(), hint)
            }
            other => {
                let source = std::error::Error::source(&other);
                let why = source.map(|s| format!(": {s}")).unwrap_or_default();
                Failure::local(
                    format!("{other}{why}"),
                    "docs/security.md explains the files",
                )
            }
        }
    }
}

/// `berth init`.
pub(super) fn init(context: &Context, args: &Init) -> Outcome {
    let now = now_ms();
    let admin = Identity::new(Role::Admin, args.admin.clone())
        .map_err(|what| Failure::usage(what, "choose another name with --admin"))?;
    let authority = Authority::generate(now)?;
    authority.save(&args.dir)?;
    let own = args.dir.join("admin");
    let signed = authority.issue(&admin, now, lifetime_ms(Role::Admin))?;
    berth_tls::save_identity(&own, &authority, &signed)?;
    let (dir, own) = (args.dir.display(), own.display());
    let text = format!(
        "made a cluster authority in {dir}\n\
         \n\
         1. Copy ca.pem and ca-key.pem to each master, and set `tls_dir` to their directory in its file.\n\
         2. Be the admin {}: export BERTH_TLS_DIR={own}\n\
         3. Let nodes and people in: berth token create --role node --name NAME\n\
         \n\
         Whoever has ca-key.pem is the cluster: keep it on masters and in a safe place, nowhere else.\n",
        args.admin
    );
    let value =
        json!({ "authority": args.dir, "admin": args.admin, "tls_dir": args.dir.join("admin") });
    let names = vec![own.to_string()];
    context.screen.print(&View { text, value, names })?;
    Ok(0)
}

/// `berth token …`.
pub(super) async fn token(context: &Context, action: TokenAction) -> Outcome {
    let TokenAction::Create(args) = action;
    let TokenCreate {
        role,
        name,
        valid_for,
        uses,
    } = args;
    let lifetime_ms = u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX);
    let request = v1::CreateTokenRequest {
        role: v1::Role::from(role).into(),
        name: name.clone(),
        lifetime_ms,
        uses,
    };
    let answer = context.client()?.create_token(request).await?;
    let masters = context.address()?.masters.join(",");
    let several = match name.ends_with('*') {
        true => " --name NAME",
        false => "",
    };
    let text = format!(
        "{token}\n\n\
         It is good for {span}. Join with it:\n\
         berth join --addr {masters}{several} --token {token}\n",
        token = answer.token,
        span = span(lifetime_ms),
    );
    let expires = rfc3339(answer.expires_ms);
    let value =
        json!({ "token": answer.token, "role": role.as_str(), "name": name, "expires": expires });
    let names = vec![answer.token];
    context.screen.print(&View { text, value, names })?;
    Ok(0)
}

/// `berth join`.
pub(super) async fn join(context: &Context, args: Join) -> Outcome {
    let token = match args.token.as_deref() {
        Some("-") => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line
        }
        Some(token) => token.to_owned(),
        None => std::env::var("BERTH_TOKEN").map_err(|_| {
            Failure::usage(
                "no token",
                "give --token TOKEN, `--token -` to read it, or BERTH_TOKEN",
            )
        })?,
    };
    let claims = berth_tls::Claims::read(&token)?;
    let daemon = matches!(claims.role, Role::Node | Role::Master);
    let dir = match (context.sources.tls_dir(), daemon) {
        (Some(dir), _) => dir,
        (None, true) => PathBuf::from(DAEMON_DIR),
        (None, false) => context.sources.personal_tls_dir()?,
    };
    let masters = context.address()?.masters;
    let joined = first_that_answers(&masters, &token, &args.name, &dir).await?;
    let text = told(context, &joined, &dir)?;
    let identity = &joined.identity;
    let value = json!({
        "role": identity.role.as_str(),
        "name": identity.name,
        "tls_dir": dir,
        "expires": rfc3339(joined.expires_ms),
        "masters": joined.masters,
    });
    let names = vec![dir.display().to_string()];
    context.screen.print(&View { text, value, names })?;
    Ok(0)
}

/// What to do next.
fn told(context: &Context, joined: &Joined, dir: &Path) -> Result<String, Failure> {
    let identity = &joined.identity;
    let mut text = format!("joined as {identity}: see {}\n", dir.display());
    let config = match identity.role {
        Role::Node => "the agent's file",
        Role::Master => "the master's file",
        Role::Admin | Role::Submitter | Role::Viewer => {
            let lines = json!({ "addresses": joined.masters, "tls_dir": dir });
            let lines = toml::to_string(&lines).unwrap_or_default();
            text += &match context.sources.found_config(&lines)? {
                Some(path) => format!(
                    "wrote {}: `berth status` should answer now\n",
                    path.display()
                ),
                None => format!("put into your configuration file, or set BERTH_TLS_DIR:\n{lines}"),
            };
            return Ok(text);
        }
    };
    text += &format!("put into {config}: tls_dir = \"{}\"\n", dir.display());
    Ok(text)
}

/// Tries each master; an answer, also a refusal, is one.
async fn first_that_answers(
    masters: &[String],
    token: &str,
    name: &str,
    dir: &Path,
) -> Result<Joined, Failure> {
    let mut last = None;
    for address in masters {
        match berth_tls::join(address, token, name, dir).await {
            Ok(joined) => return Ok(joined),
            Err(error @ TlsError::Connect { .. }) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    let none = || Failure::usage("no master is named", "give --addr HOST:PORT");
    Err(last.map_or_else(none, Failure::from))
}

/// `berth cert …`.
pub(super) async fn cert(context: &Context, action: Option<CertAction>) -> Outcome {
    match action.unwrap_or(CertAction::Show) {
        CertAction::Show => show_own(context)?,
        CertAction::List => {
            let certificates = context.client()?.certificates().await?;
            context
                .screen
                .print(&list(&context.screen, &certificates))?;
        }
        CertAction::Revoke { role, name } => {
            let identity = Identity::new(role, name)
                .map_err(|what| Failure::usage(what, "see `berth cert list`"))?;
            let text = context.client()?.revoke(&identity).await?;
            let value = json!({ "role": role.as_str(), "name": identity.name, "text": text });
            context.screen.say(&text, value, &identity.name)?;
        }
        CertAction::Renew => {
            let dialler = own(context)?;
            renew(&context.address()?.masters, &dialler, true).await?;
            show_own(context)?;
        }
        CertAction::Issue {
            authority,
            role,
            name,
        } => {
            let identity = Identity::new(role, name)
                .map_err(|what| Failure::usage(what, "choose another name"))?;
            let dir = context.sources.tls_dir().ok_or_else(|| {
                Failure::usage("no directory for the certificate", "give --tls-dir DIR")
            })?;
            let authority = Authority::load(&authority)?;
            let signed = authority.issue(&identity, now_ms(), lifetime_ms(role))?;
            berth_tls::save_identity(&dir, &authority, &signed)?;
            let text = format!("made a certificate for {identity} in {}", dir.display());
            let value = json!({ "role": role.as_str(), "name": identity.name, "tls_dir": dir });
            context.screen.say(&text, value, &identity.name)?;
        }
    }
    Ok(0)
}

fn own(context: &Context) -> Result<Dialler, Failure> {
    let address = context.address()?;
    let dir = address.tls_dir.ok_or_else(|| {
        let hint =
            "name its directory with --tls-dir or BERTH_TLS_DIR, or get one with `berth join`";
        Failure::usage("no certificate is in use", hint)
    })?;
    Ok(Dialler::from_dir(&dir)?)
}

fn show_own(context: &Context) -> Result<(), Failure> {
    let dialler = own(context)?;
    let Some(leaf) = dialler.leaf() else {
        return Ok(());
    };
    let left = leaf.until_ms.saturating_sub(now_ms());
    let expires = match left {
        0 => format!("{}: it has ended", rfc3339(leaf.until_ms)),
        left => format!("{}, in {}", rfc3339(leaf.until_ms), span(left)),
    };
    let identity = &leaf.identity;
    let text = facts(&[
        ("name", identity.name.clone()),
        ("role", identity.role.to_string()),
        ("serial", leaf.serial.to_string()),
        ("expires", expires),
        ("renews", rfc3339(leaf.renew_at_ms())),
    ]);
    let value = one(identity, leaf.serial, leaf.from_ms, leaf.until_ms);
    let names = vec![identity.name.clone()];
    context.screen.print(&View { text, value, names })
}

fn one(identity: &Identity, serial: u64, issued_ms: u64, expires_ms: u64) -> Value {
    json!({
        "role": identity.role.as_str(),
        "name": identity.name,
        "serial": serial.to_string(),
        "issued": rfc3339(issued_ms),
        "expires": rfc3339(expires_ms),
    })
}

fn list(screen: &Screen, certificates: &[CertificateView]) -> View {
    let now = now_ms();
    let rows = certificates.iter().map(|c| {
        let left = c.expires_ms.saturating_sub(now);
        vec![
            c.identity.role.to_string(),
            c.identity.name.clone(),
            c.serial.to_string(),
            rfc3339(c.issued_ms),
            span(left),
            if c.revoked { "revoked" } else { "good" }.to_owned(),
        ]
    });
    let values: Vec<Value> = certificates
        .iter()
        .map(|c| {
            let mut value = one(&c.identity, c.serial, c.issued_ms, c.expires_ms);
            value["revoked"] = c.revoked.into();
            value
        })
        .collect();
    View {
        text: screen.table(
            &["ROLE", "NAME", "SERIAL", "ISSUED", "ENDS IN", "STATE"],
            rows,
            &["SERIAL"],
        ),
        value: json!({ "certificates": values }),
        names: certificates
            .iter()
            .map(|c| c.identity.to_string())
            .collect(),
    }
}

/// Renews the certificate if two thirds of its life are over; with `now`, fails if no master would.
async fn renew(masters: &[String], dialler: &Dialler, now: bool) -> Result<(), Failure> {
    let mut last = None;
    for address in masters {
        let renewed = match now {
            true => berth_tls::renew(dialler, address).await,
            false => berth_tls::renew_if_due(dialler, address).await.map(drop),
        };
        match renewed {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(()), |error| Err(error.into()))
}

/// A command has used a certificate: if most of its life is over, a new one is fetched. Fails only in words.
pub(super) async fn keep_fresh(context: &Context) {
    /// The command has done its work; nobody waits longer for this.
    const WITHIN: Duration = Duration::from_secs(3);
    let Some(dialler) = context.dialler.get() else {
        return;
    };
    let Ok(address) = context.address() else {
        return;
    };
    let renewal = renew(&address.masters, dialler, false);
    if let Ok(Err(failure)) = tokio::time::timeout(WITHIN, renewal).await {
        let until = dialler.leaf().map_or(0, |leaf| leaf.until_ms);
        let left = span(until.saturating_sub(now_ms()));
        note(&format!(
            "warning: your certificate ends in {left} and could not be renewed: {failure}"
        ));
        let _ = std::io::stderr().flush();
    }
}
