# sam-serve on NVIDIA GPUs (CUDA 13 driver):  docker build -f docker/gpu.Dockerfile -t sam-serve:gpu .
#   docker run --gpus all -p 8000-8002:8000-8002 -v $PWD/engines/smt_t-fp16-224:/models/smt_t:ro sam-serve:gpu
# A plan runs on the very TensorRT that built it: --build-arg TENSORRT="tensorrt-cu13==10.16.1.11".
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE NOTICE /src/
COPY sam_deploy /src/sam_deploy
COPY export /src/export
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim
ARG TENSORRT="tensorrt-cu13>=10.13"
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[cuda,tensorrt,serve]" "$TENSORRT" \
 && rm -r /wheels && useradd --create-home --uid 1000 sam
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["sam-serve", "--host", "0.0.0.0"]
CMD ["/models/smt_t"]
