from tests.regraft.test_several_labels import *
import base64, time
from tests.serving.raw import http_request
from serving.request_log_options import RequestLogOptions
from serving.running.serve import serving_folder
from serving.running.runner import ServeOptions
from regraft_core.formats.request_log import read_request_log, log_files
from tests.serving.raw import until

@pytest.mark.parametrize("names", [("litert",), ("onnx",), ("litert_int8",), ("openvino_int8",)])
def test_formats(names, judged, several_dataset, tmp_path):
    t=time.process_time()
    options = ExportOptions(warmup_batch_size=2, drift_images=20, formats=names, int8_margin=0.9)
    m = export(judged.candidate, judged.evaluation, several_dataset, tmp_path / "x", options)
    print(names, m.details.get("formats"), m.details.get("thresholds"), time.process_time()-t)

def test_engine_and_v2_and_log(judged, several_dataset, tmp_path, images, here, capsys):
    out = tmp_path / "models" / "shapes" / "1"
    options = ExportOptions(warmup_batch_size=2, drift_images=20, serving_engine="openvino")
    m = export(judged.candidate, judged.evaluation, several_dataset, out, options)
    print(m.serving_engines)
    log = tmp_path / "log"
    shutil.copytree(out, out.with_name("2"))
    (out.parent / "labels.json").write_text(json.dumps({"stable": 1, "canary": 2}))
    for engine in ("openvino", "tf"):
        log = tmp_path / f"log{engine}"
        options = RequestLogOptions(str(log), sample=1.0, shadow_label="canary")
        with serving_folder(tmp_path / "models", "embedded", ServeOptions(), request_log=options, serving_engine=engine) as served:
            at = served.addresses
            with GrpcClient(at.grpc, "shapes", label="stable") as client:
                found = client.predict([i.read_bytes() for i in images])
                client.classify([images[0].read_bytes()])
            assert [f.selected for f in found] == [f.selected for f in here]
            body = {"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [2], "data": [base64.b64encode(i.read_bytes()).decode() for i in images[:2]]}]}
            status, headers, data = http_request(at.rest, "GET", "/v2/models/shapes")
            print(status, data)
            status, headers, data = http_request(at.rest, "POST", "/v2/models/shapes/versions/1/infer", json.dumps(body).encode())
            print(status, data[:600])
            until(lambda: bool(log_files(log)) and len(list(read_request_log(log))) >= len(images)+1)
        rows = list(read_request_log(log))
        print(len(rows), [(r.signature, r.answer.selected, r.shadow and r.shadow.selected) for r in rows][:4], rows[-1].answer)
        with pytest.raises(SystemExit) as e:
            main(["report", str(log)])
        print(e.value.code)
        with pytest.raises(SystemExit) as e:
            main(["drift", str(tmp_path/"models"/"shapes"), str(log)])
        print(e.value.code)
