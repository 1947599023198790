//! Prints the Sia setting beside its reference: `sia_table POLICY [WORKLOAD [SETTING]] [--jobs]`.
#![allow(clippy::print_stdout)]
use berth_sim::reproduce::sia::{cases, compare, rules};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let jobs = args.iter().any(|a| a == "--jobs");
    let args: Vec<&String> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let traces = std::path::PathBuf::from(std::env::var("BERTH_TRACES")?);
    for (case, reference) in cases(&traces)? {
        let is = |i: usize, s: &str| args.get(i).is_none_or(|a| a.as_str() == s);
        if !is(0, &case.policy)
            || !is(1, &case.workload)
            || (args.len() > 2 && !is(2, &case.setting))
            || (args.len() <= 2 && case.setting != "het64")
        {
            continue;
        }
        let (_, _, name) = rules(&case.policy)?;
        let mut policy = berth_policy::by_name(name)?;
        let began = std::time::Instant::now();
        let compared = compare(&case, reference, &mut *policy, &traces)?;
        print!(
            "{} {} {:6} {:5.2}s",
            case.setting,
            case.workload,
            case.policy,
            began.elapsed().as_secs_f64()
        );
        for (name, ours, theirs, off, ok) in compared.rows() {
            print!(
                " | {name} {ours:.3} {theirs:.3} {:+.2}%{}",
                off * 100.0,
                if ok { "" } else { " !" }
            );
        }
        println!(
            " | gpu_h {:.3} {:.3}",
            compared.measured.gpu_hours, compared.reference.gpu_hours
        );
        if jobs {
            for (key, [a, b, c, d]) in &compared.jobs {
                println!(
                    "  {key:16} {a:8.0} {b:8.0} {:+6.1}%  restarts {c} {d}",
                    (a / b - 1.0) * 100.0
                );
            }
        }
    }
    Ok(())
}
