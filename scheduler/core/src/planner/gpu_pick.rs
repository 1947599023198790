//! Which GPUs of one node a group's workers get: inside one NVLink group where they fit, fractions on GPUs that are
//! in use already.

use berth_types::{GpuShare, MILLI, Resources};

use super::capacity::{Capacity, Leeway};
use super::class::Class;
use super::room::{WHOLE, bytes, signed};
use super::shape::GpuMatch;

/// A node's free amounts while a job is tried on it.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    pub(super) gpus: Vec<i32>,
    pub(super) cpu: i64,
    pub(super) mem: i64,
}

impl Bench {
    /// What a job with this leeway sees of a node.
    pub(super) fn of(capacity: &Capacity<'_>, seat: u32, leeway: Leeway) -> Self {
        let info = &capacity.seats[seat as usize];
        let amounts = &capacity.room(info.class, leeway).amounts;
        Self {
            gpus: amounts.gpus[info.gpus()].to_vec(),
            cpu: amounts.cpu[seat as usize],
            mem: amounts.mem[seat as usize],
        }
    }

    /// Workers that fit here, at most `most`.
    pub(super) fn slots(&self, resources: &Resources, suits: &GpuMatch, most: u32) -> u32 {
        slots(&self.gpus, self.cpu, self.mem, resources, suits, most)
    }

    /// Seats `count` workers and pushes their GPU shares, or leaves `out` as it was and says false.
    pub(super) fn seat(
        &mut self,
        class: &Class<'_>,
        suits: &GpuMatch,
        resources: &Resources,
        count: u32,
        out: &mut Vec<Vec<GpuShare>>,
    ) -> bool {
        if self.slots(resources, suits, count) < count {
            return false;
        }
        self.cpu -= i64::from(resources.millicpu) * i64::from(count);
        self.mem -= bytes(resources.mem_bytes).saturating_mul(i64::from(count));
        let devices = resources.devices() as usize;
        if devices == 0 {
            out.extend((0..count).map(|_| Vec::new()));
        } else if resources.milligpu < MILLI {
            out.extend((0..count).map(|_| self.take_fraction(class, suits, resources.milligpu)));
        } else {
            let gpus = self.pick_whole(class, suits, devices * count as usize);
            for &gpu in &gpus {
                self.gpus[usize::from(gpu)] -= WHOLE;
            }
            out.extend(gpus.chunks(devices).map(whole_shares));
        }
        true
    }

    /// The fullest GPU that has room, else one of the NVLink group that is broken up most.
    fn take_fraction(
        &mut self,
        class: &Class<'_>,
        suits: &GpuMatch,
        milligpu: u32,
    ) -> Vec<GpuShare> {
        let need = signed(milligpu);
        let used = (0u16..)
            .zip(&self.gpus)
            .filter(|&(gpu, &free)| suits.suits(usize::from(gpu)) && (need..WHOLE).contains(&free))
            .min_by_key(|&(gpu, &free)| (free, gpu))
            .map(|(gpu, _)| gpu);
        let fresh = || {
            (class.links.iter())
                .filter_map(|link| {
                    let free: Vec<u16> = self.free_of(link, suits);
                    free.first().map(|&first| (free.len(), first))
                })
                .min()
                .map(|(_, gpu)| gpu)
        };
        let Some(gpu) = used.or_else(fresh) else {
            return Vec::new();
        };
        self.gpus[usize::from(gpu)] -= need;
        vec![GpuShare { gpu, milligpu }]
    }

    /// Wholly free GPUs: the tightest NVLink group that holds them all, else as few groups as possible.
    pub(super) fn pick_whole(&self, class: &Class<'_>, suits: &GpuMatch, count: usize) -> Vec<u16> {
        let mut links: Vec<Vec<u16>> = (class.links.iter())
            .map(|link| self.free_of(link, suits))
            .filter(|free| !free.is_empty())
            .collect();
        let tightest =
            (links.iter().filter(|free| free.len() >= count)).min_by_key(|free| free.len());
        if let Some(free) = tightest {
            return free[..count].to_vec();
        }
        links.sort_by_key(|free| std::cmp::Reverse(free.len()));
        links.into_iter().flatten().take(count).collect()
    }

    fn free_of(&self, link: &[u16], suits: &GpuMatch) -> Vec<u16> {
        let free =
            |&gpu: &u16| self.gpus[usize::from(gpu)] >= WHOLE && suits.suits(usize::from(gpu));
        link.iter().copied().filter(|gpu| free(gpu)).collect()
    }
}

fn whole_shares(gpus: &[u16]) -> Vec<GpuShare> {
    let mut shares: Vec<GpuShare> = (gpus.iter())
        .map(|&gpu| GpuShare {
            gpu,
            milligpu: MILLI,
        })
        .collect();
    shares.sort_unstable();
    shares
}

/// Workers that fit into these free amounts, at most `most`.
pub(super) fn slots(
    gpus: &[i32],
    cpu: i64,
    mem: i64,
    resources: &Resources,
    suits: &GpuMatch,
    most: u32,
) -> u32 {
    // Less than nothing is free while a reservation overlaps what it waits for.
    let by = |free: i64, need: i64| match need {
        _ if free < 0 => 0,
        0 => most,
        need => u32::try_from(free / need).unwrap_or(most).min(most),
    };
    let host = by(cpu, i64::from(resources.millicpu)).min(by(mem, bytes(resources.mem_bytes)));
    if host == 0 || *suits == GpuMatch::No {
        return 0;
    }
    let need = signed(resources.milligpu);
    if need == 0 {
        return host;
    }
    let suiting = || {
        gpus.iter()
            .enumerate()
            .filter(|(gpu, _)| suits.suits(*gpu))
            .map(|(_, &free)| free)
    };
    let fit = if need < WHOLE {
        suiting().map(|free| i64::from(free.max(0) / need)).sum()
    } else {
        let whole = suiting().filter(|&free| free >= WHOLE).count();
        i64::try_from(whole).unwrap_or(0) / i64::from(resources.devices())
    };
    host.min(u32::try_from(fit).unwrap_or(most))
}
