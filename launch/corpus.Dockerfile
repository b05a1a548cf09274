# The image of Beam's workers for `xlmr build_corpus` and `xlmr build_rows`. Never built here: this file could only be written.
#   docker build --build-arg BEAM=2.77.0 -f launch/corpus.Dockerfile -t IMAGE . && docker push IMAGE
# Beam's version must be the one of the machine that starts the job.
ARG BEAM=2.77.0
FROM apache/beam_python3.11_sdk:${BEAM}
COPY . /xlmr_jax
RUN pip install --no-cache-dir '/xlmr_jax[corpus,gcs]' && rm -rf /xlmr_jax
