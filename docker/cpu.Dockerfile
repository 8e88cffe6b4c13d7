# sam-serve on CPUs:  docker build -f docker/cpu.Dockerfile -t sam-serve:cpu .
#                     docker run -p 8000-8002:8000-8002 -v $PWD/engines/smt_t-fp16-224:/models/smt_t:ro sam-serve:cpu
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE NOTICE /src/
COPY sam_deploy /src/sam_deploy
COPY export /src/export
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[cpu,serve]" && rm -r /wheels \
 && useradd --create-home --uid 1000 sam
USER 1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["sam-serve", "--host", "0.0.0.0"]
CMD ["/models/smt_t"]
