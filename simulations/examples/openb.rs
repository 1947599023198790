//! Prints FGD's packing experiments beside the published figures: `openb [policies] [lists] [seeds]`, each separated by
//! commas, all by default. `BERTH_TRACES` names the folder of recorded traces.

use std::time::Instant;

use anyhow::Context;
use berth_sim::input::traces_dir;
use berth_sim::reproduce::openb::{LISTS, POLICIES, Packing, Published, SEEDS, cells};

fn main() -> anyhow::Result<()> {
    let traces = traces_dir().context("BERTH_TRACES is not set")?;
    let mut args = std::env::args().skip(1);
    let mut choice = |all: Vec<String>| match args.next() {
        Some(named) if named != "all" => named.split(',').map(str::to_owned).collect(),
        _ => all,
    };
    let policies = choice(POLICIES.iter().map(|p| p.0.to_owned()).collect());
    let lists = choice(LISTS.iter().map(|l| (*l).to_owned()).collect());
    let seeds = choice(SEEDS.iter().map(u64::to_string).collect());
    let published = Published::read(&traces)?;
    println!("| list | policy | arrived % | measured | published | off | band | seconds per run |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for list in &lists {
        let packings: Result<Vec<Packing>, _> = (seeds.iter())
            .map(|seed| Ok(Packing::read(&traces, list, seed.parse()?)?))
            .collect::<anyhow::Result<_>>();
        let packings = packings?;
        for policy in &policies {
            let began = Instant::now();
            let mut runs = Vec::new();
            for packing in &packings {
                runs.push((packing.seed, packing.run(policy)?));
            }
            let each = began.elapsed().as_secs_f64() / runs.len() as f64;
            for cell in cells(&published, list, policy, &runs) {
                println!(
                    "| {list} | {policy} | {} | {:.2} | {:.2} | {:+.2} | {}{} | {each:.2} |",
                    cell.load,
                    cell.measured,
                    cell.published,
                    cell.measured - cell.published,
                    cell.band,
                    if cell.holds() { "" } else { " MISSED" },
                );
            }
        }
    }
    Ok(())
}
