# The same image by Terraform: a function with an HTTP address, and nothing else. For alarms,
# canary and rollback use template.yaml. Push the image first (`make image`, then `docker push`).
#
#   terraform init && terraform apply -var image_uri=ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG

terraform {
  required_providers {
    aws = { source = "hashicorp/aws", version = "~> 6.29" }
  }
}

variable "image_uri" { type = string }

resource "aws_iam_role" "function" {
  name_prefix = "image-classifier-"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "lambda.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.function.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_lambda_function" "classifier" {
  function_name                  = "image-classifier"
  role                           = aws_iam_role.function.arn
  package_type                   = "Image"
  image_uri                      = var.image_uri
  memory_size                    = 1769 # one vCPU
  timeout                        = 29
  reserved_concurrent_executions = -1 # a number is a ceiling of the bill
}

resource "aws_lambda_function_url" "public" {
  function_name      = aws_lambda_function.classifier.function_name
  authorization_type = "NONE" # everybody who knows the address can call it. AWS_IAM needs signatures
}

# New URLs need this too (docs/deploy-reference.md). The provider adds lambda:InvokeFunctionUrl itself.
resource "aws_lambda_permission" "through_the_url" {
  function_name            = aws_lambda_function.classifier.function_name
  action                   = "lambda:InvokeFunction"
  principal                = "*"
  invoked_via_function_url = true # without it every AWS account may invoke the function directly
}

output "endpoint" { value = aws_lambda_function_url.public.function_url }
