//! Operators' orders about the health of nodes and GPUs.

use berth_types::HealthOrder;
use berth_types::api::{ApiError, ErrorKind};

use super::Replica;
use crate::command::Command;

impl Replica {
    /// The command for an order; `gpu` is an index, a UUID, or the start of one.
    pub(super) fn health_order(
        &self,
        name: &str,
        gpu: Option<&str>,
        order: &HealthOrder,
    ) -> Result<Command, ApiError> {
        let faults = order.faults();
        if !faults.is_empty() {
            return Err(ApiError::faults("ORDER_INVALID", faults));
        }
        let node = self.node_id(name)?;
        let gpu = match gpu {
            Some(gpu) => Some(self.gpu_index(name, gpu)?),
            None => None,
        };
        let order = order.clone();
        Ok(Command::OrderHealth { node, gpu, order })
    }

    fn gpu_index(&self, name: &str, gpu: &str) -> Result<u16, ApiError> {
        let node = self.state.node_named(name);
        let gpus = node.map_or(&[][..], |node| &node.spec.gpus);
        let index = gpu.parse::<u16>().ok();
        if let Some(index) = index.filter(|index| usize::from(*index) < gpus.len()) {
            return Ok(index);
        }
        let named = (0u16..).zip(gpus).filter(|(_, info)| {
            let uuid = info.uuid.strip_prefix("GPU-").unwrap_or(&info.uuid);
            info.uuid.starts_with(gpu) || uuid.starts_with(gpu)
        });
        let found: Vec<u16> = named.map(|(index, _)| index).collect();
        match found.as_slice() {
            [index] => Ok(*index),
            several => {
                let what = match several.len() {
                    0 => format!("node {name} has no GPU `{gpu}`"),
                    n => format!("`{gpu}` means {n} GPUs of node {name}"),
                };
                let hint = "give its number or UUID, as `berth node NAME` shows them";
                Err(ApiError::new(
                    ErrorKind::NotFound,
                    "GPU_NOT_FOUND",
                    what,
                    hint,
                ))
            }
        }
    }
}

pub(super) fn done_text(name: &str, gpu: Option<&str>, order: &HealthOrder) -> String {
    let what = match gpu {
        Some(gpu) => format!("GPU {gpu} of node {name}"),
        None => format!("node {name}"),
    };
    match order {
        HealthOrder::Quarantine { .. } => {
            format!("{what} takes no new work; what runs there moves away at its next checkpoint")
        }
        HealthOrder::Return => format!("{what} is used again once it has passed its test"),
    }
}
