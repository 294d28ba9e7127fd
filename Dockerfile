# docker build --tag onnx-tropnnc .
# docker run --rm --network none --volume "$PWD:/models" onnx-tropnnc in.onnx out.onnx --ratio 0.3
FROM python:3.12-slim

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY onnx_tropnnc onnx_tropnnc
COPY passes passes
RUN python -m pip install --no-cache-dir --constraint constraints.txt ".[cpu,report]" && rm -rf /source

# Strangers' models are read by a user that may write nothing but the folder of models.
RUN useradd --create-home --uid 1000 tropnnc
USER tropnnc
WORKDIR /models
ENTRYPOINT ["onnx-tropnnc"]
CMD ["--help"]
