//! Malformed messages: an error that names the field, never a panic.

use berth_proto::{DecodeError, v1};
use berth_types::api::{JobView, NodeView, Request, StatusView, WhyView};
use berth_types::{AgentReport, Attempt, Directive, NodeSpec};
use proptest::prelude::*;
use prost::Message;

fn field<T: std::fmt::Debug>(result: Result<T, DecodeError>) -> String {
    let error = result.expect_err("it is malformed");
    assert!(
        !error.what.is_empty() && !error.hint.is_empty(),
        "{error:?}"
    );
    error.field
}

fn submit(key: &str) -> v1::SubmitRequest {
    v1::SubmitRequest {
        key: key.into(),
        spec: Some(v1::JobSpec::default()),
    }
}

const V7: &str = "01920000-0000-7000-8000-000000000001";

#[test]
fn errors_name_the_field() {
    let no_spec = v1::SubmitRequest {
        spec: None,
        ..submit(V7)
    };
    let restart = v1::RestartSpec {
        on_lost_node: 99,
        ..v1::RestartSpec::default()
    };
    let rule = v1::JobSpec {
        restart: Some(restart),
        ..v1::JobSpec::default()
    };
    let bad_rule = v1::SubmitRequest {
        spec: Some(rule),
        ..submit(V7)
    };
    let list = v1::ListJobsRequest {
        states: vec![1, 99],
        ..v1::ListJobsRequest::default()
    };
    let unspecified = v1::ListJobsRequest {
        states: vec![0],
        ..v1::ListJobsRequest::default()
    };
    let add = |id, address: &str, replaces| v1::AddMasterRequest {
        id,
        address: address.into(),
        replaces,
    };
    let rows = [
        (Request::try_from(submit("")), "key"),
        (Request::try_from(submit("no-uuid")), "key"),
        // A version 4 UUID.
        (
            Request::try_from(submit("9b2b3c1e-8d0f-4c7e-9a51-0d6a1f4b8e11")),
            "key",
        ),
        (Request::try_from(no_spec), "spec"),
        (Request::try_from(bad_rule), "spec.restart.on_lost_node"),
        (Request::try_from(list), "states[1]"),
        (Request::try_from(unspecified), "states[0]"),
        (Request::try_from(v1::GetNodeRequest::default()), "name"),
        (Request::try_from(v1::DrainRequest::default()), "name"),
        (Request::try_from(v1::FenceRequest::default()), "name"),
        (Request::try_from(add(0, "127.0.0.1:1", None)), "id"),
        (Request::try_from(add(1, "127.0.0.1", None)), "address"),
        (Request::try_from(add(1, ":80", None)), "address"),
        (Request::try_from(add(1, "h:0", None)), "address"),
        (Request::try_from(add(1, "h:99999", None)), "address"),
        (Request::try_from(add(1, "h:1", Some(0))), "replaces"),
        (Request::try_from(v1::RemoveMasterRequest { id: 0 }), "id"),
        (
            Request::try_from(&v1::LogsRequest {
                stream: 9,
                ..v1::LogsRequest::default()
            }),
            "stream",
        ),
    ];
    for (result, expected) in rows {
        assert_eq!(field(result), expected);
    }
}

#[test]
fn nested_errors_name_the_whole_path() {
    let share = v1::GpuShare {
        gpu: 70_000,
        milligpu: 1,
    };
    let placement = v1::TaskPlacement {
        gpus: vec![share],
        ..v1::TaskPlacement::default()
    };
    let assigned = v1::task_record::Phase::Assigned(v1::task_record::Assigned {});
    let task = v1::TaskRecord {
        placement: Some(placement),
        phase: Some(assigned),
    };
    let attempt = v1::Attempt {
        phase: 1,
        tasks: vec![task],
        ..v1::Attempt::default()
    };
    assert_eq!(
        field(Attempt::try_from(attempt)),
        "tasks[0].placement.gpus[0].gpu"
    );
    let gpu = v1::GpuInfo {
        numa: 65_536,
        ..v1::GpuInfo::default()
    };
    let node = |gpus, port_first, port_count| v1::NodeSpec {
        name: "n".into(),
        gpus,
        port_first,
        port_count,
        ..v1::NodeSpec::default()
    };
    assert_eq!(
        field(NodeSpec::try_from(node(vec![gpu], 0, 0))),
        "gpus[0].numa"
    );
    assert_eq!(
        field(NodeSpec::try_from(node(vec![], 65_535, 2))),
        "port_count"
    );
    assert_eq!(field(NodeSpec::try_from(v1::NodeSpec::default())), "name");
    let event = v1::TaskEvent { kind: None };
    let report = v1::AgentReport {
        full_inventory: false,
        events: vec![event],
    };
    assert_eq!(field(AgentReport::try_from(report)), "events[0].kind");
}

/// Decodes `bytes` as a message and converts it; `Err` is fine, a panic is not.
fn convert<W: Message + Default, D: TryFrom<W>>(bytes: &[u8]) {
    if let Ok(message) = W::decode(bytes) {
        let _ = D::try_from(message);
    }
}

fn all(bytes: &[u8]) {
    convert::<v1::SubmitRequest, Request>(bytes);
    convert::<v1::ListJobsRequest, Request>(bytes);
    convert::<v1::AddMasterRequest, Request>(bytes);
    convert::<v1::DrainRequest, Request>(bytes);
    convert::<v1::EventsRequest, Request>(bytes);
    convert::<v1::Job, JobView>(bytes);
    convert::<v1::Node, NodeView>(bytes);
    convert::<v1::StatusResponse, StatusView>(bytes);
    convert::<v1::WhyResponse, WhyView>(bytes);
    convert::<v1::Directive, Directive>(bytes);
    convert::<v1::AgentReport, AgentReport>(bytes);
}

/// Something that prost takes for fields more often than noise: tags of small fields with plausible contents.
fn fields(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let varint = (1u8..24, any::<u64>()).prop_map(|(tag, n)| {
        let mut out = Vec::new();
        prost::encoding::encode_varint(u64::from(tag) << 3, &mut out);
        prost::encoding::encode_varint(n, &mut out);
        out
    });
    let content = if depth == 0 {
        proptest::collection::vec(any::<u8>(), 0..12).boxed()
    } else {
        fields(depth - 1)
    };
    let bytes = (1u8..24, content).prop_map(|(tag, content)| {
        let mut out = Vec::new();
        prost::encoding::encode_varint(u64::from(tag) << 3 | 2, &mut out);
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend(content);
        out
    });
    proptest::collection::vec(prop_oneof![varint, bytes], 0..6)
        .prop_map(|parts| parts.concat())
        .boxed()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        all(&bytes);
    }

    #[test]
    fn arbitrary_fields_never_panic(bytes in fields(3)) {
        all(&bytes);
    }

    #[test]
    fn arbitrary_details_never_panic(bytes in fields(2), code in 0i32..20) {
        let status = tonic::Status::with_details(tonic::Code::from_i32(code), "x", bytes.into());
        let _ = berth_proto::from_status(&status);
    }
}
