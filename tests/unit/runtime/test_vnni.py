import pytest

from kinglet.runtime.vnni import products_saturate

AVX512 = "avx2 avx512f avx512bw avx512dq avx512vl"


def cpu_info(flags):
    return f"processor\t: 0\nmodel name\t: Some chip\nflags\t\t: fpu sse2 {flags}\n\nprocessor\t: 1\nflags\t\t: other\n"


@pytest.mark.parametrize(
    ("machine", "text", "saturate"),
    [
        pytest.param("x86_64", cpu_info(f"{AVX512} avx512_vnni"), False, id="Ice Lake, Zen 4"),
        pytest.param("x86_64", cpu_info("avx2 avx_vnni"), False, id="Alder Lake"),
        pytest.param("x86_64", cpu_info(f"{AVX512} avx512_vnni avx_vnni amx_int8"), False, id="Sapphire Rapids"),
        pytest.param("x86_64", cpu_info(AVX512), True, id="Skylake-SP"),
        pytest.param("x86_64", cpu_info("avx2 fma"), True, id="Haswell, Zen 2, Zen 3"),
        pytest.param("x86_64", cpu_info(f"{AVX512} avx_vnni"), True, id="AVX-512 kernels take no AVX-VNNI"),
        pytest.param("x86_64", cpu_info("avx2 avx512_vnni"), True, id="half of AVX-512: the AVX2 kernels run"),
        pytest.param("x86_64", cpu_info("avx2 avx512_vnni_of_tomorrow"), True, id="flags are whole words"),
        pytest.param("aarch64", "processor\t: 0\nFeatures\t: fp asimd asimddp\n", False, id="ARM"),
        pytest.param("arm64", None, False, id="Apple"),
        pytest.param("AMD64", None, True, id="Windows tells nothing"),
        pytest.param("x86_64", "", True, id="an empty file tells nothing"),
        pytest.param("riscv64", None, False, id="another architecture"),
    ],
)
def test_what_the_processor_reports_decides(tmp_path, machine, text, saturate):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert products_saturate(path, machine) is saturate


def test_this_machine_gives_an_answer():
    assert products_saturate() in (True, False)
