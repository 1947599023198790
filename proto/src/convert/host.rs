//! What nodes say of themselves.

use berth_types::host::{MAX_ENFORCED, MAX_HOST_TEXT_BYTES};
use berth_types::{Hook, HostReport, Isolation, IsolationKind};

use super::DecodeError;
use crate::v1;

impl From<&Isolation> for v1::Isolation {
    fn from(i: &Isolation) -> Self {
        let kind = match i.kind {
            IsolationKind::Unknown => v1::IsolationKind::Unspecified,
            IsolationKind::ProcessGroup => v1::IsolationKind::ProcessGroup,
            IsolationKind::Cgroup => v1::IsolationKind::Cgroup,
        };
        Self {
            kind: kind.into(),
            enforced: i.enforced.clone(),
            note: i.note.clone(),
        }
    }
}

impl TryFrom<v1::Isolation> for Isolation {
    type Error = DecodeError;

    fn try_from(i: v1::Isolation) -> Result<Self, DecodeError> {
        if i.enforced.len() > MAX_ENFORCED {
            let hint = format!("at most {MAX_ENFORCED}");
            return Err(DecodeError::new("isolation.enforced", "too many", hint));
        }
        let limits = i.enforced.into_iter();
        Ok(Self {
            // A newer node's kind is none that this side could explain.
            kind: match v1::IsolationKind::try_from(i.kind) {
                Ok(v1::IsolationKind::ProcessGroup) => IsolationKind::ProcessGroup,
                Ok(v1::IsolationKind::Cgroup) => IsolationKind::Cgroup,
                Ok(v1::IsolationKind::Unspecified) | Err(_) => IsolationKind::Unknown,
            },
            enforced: limits
                .map(|name| short(name, "isolation.enforced"))
                .collect::<Result<_, _>>()?,
            note: short(i.note, "isolation.note")?,
        })
    }
}

impl From<&HostReport> for v1::HostReport {
    fn from(r: &HostReport) -> Self {
        Self {
            isolation: Some((&r.isolation).into()),
            unfit: r.unfit.clone(),
        }
    }
}

impl TryFrom<v1::HostReport> for HostReport {
    type Error = DecodeError;

    fn try_from(r: v1::HostReport) -> Result<Self, DecodeError> {
        let isolation = r.isolation.map(Isolation::try_from).transpose()?;
        Ok(Self {
            isolation: isolation.unwrap_or_default(),
            unfit: r.unfit.map(|why| short(why, "host.unfit")).transpose()?,
        })
    }
}

pub(super) fn hook_to(hook: Hook) -> i32 {
    let hook = match hook {
        Hook::Prolog => v1::Hook::Prolog,
        Hook::Epilog => v1::Hook::Epilog,
        Hook::HealthCheck => v1::Hook::Unspecified,
    };
    hook.into()
}

pub(super) fn hook_from(hook: i32) -> Result<Hook, DecodeError> {
    match v1::Hook::try_from(hook) {
        Ok(v1::Hook::Prolog) => Ok(Hook::Prolog),
        Ok(v1::Hook::Epilog) => Ok(Hook::Epilog),
        Ok(v1::Hook::Unspecified) | Err(_) => Err(DecodeError::unknown("hook_failed.hook", hook)),
    }
}

/// Refuses what no node of ours would say at such length.
pub(super) fn short(text: String, field: &'static str) -> Result<String, DecodeError> {
    if text.len() > MAX_HOST_TEXT_BYTES {
        let hint = format!("at most {MAX_HOST_TEXT_BYTES} bytes");
        return Err(DecodeError::new(
            field,
            format!("{} bytes", text.len()),
            hint,
        ));
    }
    Ok(text)
}
